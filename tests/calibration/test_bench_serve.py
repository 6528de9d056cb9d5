"""`kvsim trace convert`: results of vllm bench serve become runs that `kvsim validate` reads."""

import json
from pathlib import Path

import pytest

from calibration.bench_serve import convert
from calibration.measured_run import read_run
from hw_profiles.errors import InputError

RESULT = {
    "model_id": "meta-llama/Llama-3.1-8B-Instruct",
    "request_rate": 2.0,
    "max_concurrency": None,
    "completed": 2,
    "input_lens": [100, 40, 70],
    "output_lens": [3, 1, 0],
    "ttfts": [0.2, 0.1, 0.0],
    "itls": [[0.01, 0.02], [], []],
    "start_times": [1000.5, 1001.0, 1002.0],
    "errors": ["", "", "Bad Gateway"],
}


def written(folder: Path, **changed: object) -> Path:
    path = folder / "bench.json"
    path.write_text(json.dumps({key: value for key, value in (RESULT | changed).items() if value != "absent"}))
    return path


def test_a_result_becomes_a_run(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    engine = {"max_num_seqs": 64}
    done = convert(written(tmp_path), out, profile="h100-sxm", engine=engine, prefix_caching=False)
    assert done == (2, 1, "llama-3.1-8b")
    run = read_run(out)
    assert (run.name, run.model, run.profile, dict(run.engine)) == ("bench", "llama-3.1-8b", "h100-sxm", engine)
    assert not run.prefix_caching
    assert run.queued_s.tolist() == [0.0, 0.5]
    assert run.latencies["ttft"] == pytest.approx([0.2, 0.1])
    assert run.latencies["e2e"] == pytest.approx([0.23, 0.1])
    assert run.input_tokens.tolist() == [100, 40]
    assert run.output_tokens.tolist() == [3, 1]


def test_all_at_once_needs_no_starts(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    convert(written(tmp_path, start_times="absent", request_rate="inf"), out, profile="h100-sxm")
    assert read_run(out).queued_s.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ttfts": "absent"}, "ttfts: has no times of each request: .* --save-detailed"),
        ({"start_times": "absent"}, "start_times: does not say when requests were sent"),
        ({"start_times": "absent", "request_rate": "inf", "max_concurrency": 8}, "start_times"),
        ({"itls": [[0.01]]}, "itls: 1 entries for 3 requests"),
        ({"itls": [[0.01, None], [], []]}, "request 0: a time or a length"),
        ({"output_lens": [0, 0, 0]}, "no request that finished"),
        ({"model_id": "someone/else"}, "model_id: .*give --model"),
    ],
)
def test_what_cannot_be_converted_is_named(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    with pytest.raises(InputError, match=message):
        convert(written(tmp_path, **changed), out, profile="h100-sxm")
    assert not out.exists()


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    for text in ("", '{"a": 1}\n{"b": 2}', "[1]"):
        path.write_text(text)
        with pytest.raises(InputError, match="not a result of vllm bench serve"):
            convert(path, tmp_path / "run.jsonl", profile="h100-sxm")
