"""Suite trtllm: the table is read, the closest settings are what they say, and single GPUs come out near."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.validate_trtllm import TABLE, Point, limits, points, throughput, validate_trtllm

DATA = Path(os.environ.get("KVSIM_TRACES") or Path(__file__).parents[3] / "shared" / "data" / "traces").parent
needs_table = pytest.mark.skipif(not (DATA / TABLE).is_file(), reason=f"no {TABLE} in {DATA}")
SMALL = Point("Llama-3.1-8B", "A100_SXM4_80GB", "FP16", 1, 500, 200, 60, 1000.0)


def written(folder: Path, *lines: str) -> Path:
    path = folder / TABLE
    path.parent.mkdir(parents=True)
    head = "model,gpu,weights,kv_cache,tp,isl,osl,num_requests,output_tok_per_s_total"
    path.write_text("\n".join((head, *lines)) + "\n")
    return folder


def test_rows_have_the_form_of_the_others(tmp_path: Path) -> None:
    known = "Llama-3.1-8B,A100_SXM4_80GB,FP16,FP16,1,500,200,60,1000.0"
    data = written(tmp_path, known, "Some-400B,A100_SXM4_80GB,FP16,FP16,8,500,200,60,1.0")
    assert list(points(data)) == [SMALL]
    (row,) = validate_trtllm(data)
    assert row.as_dict() == {
        "suite": "trtllm",
        "metric": "output_tokens_per_s Llama-3.1-8B A100_SXM4_80GB tp1 500/200",
        "measured": 1000.0,
        "simulated": throughput(SMALL),
        "error": throughput(SMALL) / 1000.0 - 1,
        "target": None,
    }
    assert not row.missed


def test_more_ranks_and_shorter_answers_move_the_throughput() -> None:
    assert throughput(SMALL) < throughput(replace(SMALL, tp=2))
    assert throughput(replace(SMALL, osl=20)) < throughput(SMALL)  # prompts are what takes the time


def test_limits_are_those_that_the_benchmark_derives() -> None:
    """8 billion parameters of two bytes leave 64 GiB of 80; a token is 128 KiB, so 711 requests fit in 95 % of that."""
    assert limits(SMALL) == {"max_num_seqs": 768, "max_num_batched_tokens": 2560}
    large = replace(SMALL, model="Llama-3.1-70B", tp=2, isl=128, osl=2048)
    assert limits(large) == {"max_num_seqs": 64, "max_num_batched_tokens": 2048}
    assert limits(replace(SMALL, isl=128, osl=128)) == {"max_num_seqs": 2048, "max_num_batched_tokens": 4096}


@needs_table
def test_single_gpus_are_near_without_a_fit() -> None:
    chosen = [p for p in points(DATA) if p.tp == 1 and p.isl == 2048]
    assert len(chosen) == 8
    errors = [throughput(point) / point.measured - 1 for point in chosen]
    assert abs(np.median(errors)) < 0.1
    assert max(map(abs, errors)) < 0.2
