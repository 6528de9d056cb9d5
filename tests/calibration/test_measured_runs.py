"""Measured runs: read, simulated, compared; the public run of vLLM meets its targets."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from calibration.measured_run import SHAREGPT, MeasuredRun, read_run, sharegpt_run
from calibration.validate_runs import (
    LEARN_S,
    TARGETS,
    compare,
    latencies,
    learn_host_time,
    simulate_run,
    step_sensitivity,
)
from hw_profiles.errors import InputError

TRACES = Path(os.environ.get("KVSIM_TRACES") or Path(__file__).parents[3] / "shared" / "data" / "traces")
needs_run = pytest.mark.skipif(not (TRACES.parent / SHAREGPT).is_dir(), reason=f"no {SHAREGPT} in {TRACES.parent}")
HEAD = {
    "schema": "kvsim-measured/1",
    "name": "mine",
    "model": "llama-3.1-8b",
    "profile": "h100-sxm",
    "engine": {"max_num_seqs": 32, "max_num_batched_tokens": 2048},
    "block_tokens": 16,
}
ROW = {"queued_s": 5.0, "first_token_s": 5.5, "last_token_s": 6.0, "input_tokens": 32, "output_tokens": 6}


def written(path: Path, *rows: dict[str, object], head: dict[str, object] = HEAD) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in (head, *rows)) + "\n")
    return path


def test_a_run_is_read_in_order_of_queueing(tmp_path: Path) -> None:
    later = {**ROW, "queued_s": 7.0, "first_token_s": 7.25, "last_token_s": 9.0, "output_tokens": 1}
    run = read_run(written(tmp_path / "run.jsonl", later, {**ROW, "hash_ids": [3, 4]}))
    assert list(run.queued_s) == [0.0, 2.0]
    assert run.hash_ids == ((3, 4), ())
    assert run.prefix_caching
    found = run.latencies
    assert list(found["ttft"]) == [0.5, 0.25]
    assert found["tpot"][0] == pytest.approx(0.1)
    assert np.isnan(found["tpot"][1])
    assert list(found["e2e"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"first_token_s": 4.0}, r"run.jsonl:2: times out of order"),
        ({"input_tokens": None}, r"run.jsonl:2: input_tokens: .*a finite number"),
        ({"output_tokens": 0}, r"run.jsonl:2: a request without tokens"),
        ({"outputs": 3}, r"run.jsonl:2: unknown key, found 'outputs'.*did you mean 'output_tokens'"),
        ({"queued_s": float("nan")}, r"run.jsonl:2: queued_s: .*a finite number"),
    ],
)
def test_a_damaged_line_is_named(row: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_run(written(tmp_path / "run.jsonl", {**ROW, **row}))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({**HEAD, "schema": "kvsim-measured/2"}, "schema: found 'kvsim-measured/2', expected kvsim-measured/1"),
        ({key: value for key, value in HEAD.items() if key != "model"}, "missing key 'model'"),
        ({**HEAD, "engine": 3}, "engine: found 3, expected a mapping"),
    ],
)
def test_a_damaged_head_is_named(head: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_run(written(tmp_path / "run.jsonl", ROW, head=head))


def test_a_cut_file_and_an_empty_one_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", ROW)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match=r"run.jsonl:2: not a line of JSON"):
        read_run(path)
    with pytest.raises(InputError, match="no requests"):
        read_run(written(tmp_path / "none.jsonl"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> MeasuredRun:
    """What a server would have measured that is exactly as simulated, with 0.7 ms of host time."""
    rng = np.random.Generator(np.random.Philox(7))
    rows: list[dict[str, object]] = []
    for i in range(120):
        prompt, output = int(rng.integers(20, 2000)), int(rng.integers(1, 200))
        ids = [10_000 * (i % 5) + k for k in range(prompt // 16)]
        start = 0.15 * i
        rows.append({**ROW, "queued_s": start, "first_token_s": start, "last_token_s": start, "hash_ids": ids})
        rows[-1] |= {"input_tokens": prompt, "output_tokens": output}
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    done = simulate_run(read_run(written(path, *rows)), 0.0007).tables["requests"]
    columns = {name: done[f"{name}_s"].to_pylist() for name in ("arrival", "first_token", "finish")}
    for row, queued, first, last in zip(rows, *columns.values(), strict=True):
        row |= {"queued_s": queued, "first_token_s": first, "last_token_s": last}
    return read_run(written(path, *rows))


def test_the_host_time_is_found_from_the_first_seconds(own: MeasuredRun) -> None:
    assert (own.queued_s >= LEARN_S).sum() > 40
    found = learn_host_time(own)
    assert found == pytest.approx(0.0007, abs=2e-5)
    rows = compare(own, simulate_run(own, 0.0007), own.queued_s >= LEARN_S)
    assert all(abs(row.error) < 1e-9 for row in rows)
    assert not any(row.missed for row in rows)


def test_wrong_steps_miss(own: MeasuredRun) -> None:
    rows = compare(own, simulate_run(own, 0.004), own.queued_s >= LEARN_S)
    assert {row.metric for row in rows if row.missed} >= {"tpot_mean", "e2e_mean"}
    assert {row.metric for row in rows if row.target is not None} == {f"{m}_{s}" for m, s in TARGETS}


def test_prefix_caching_off_shares_nothing(own: MeasuredRun) -> None:
    on, off = (simulate_run(own, 0.0, prefix_caching=caching) for caching in (True, False))
    assert on.summary["prefix"]["hit_ratio"] > 0.1
    assert off.summary["prefix"]["hit_ratio"] == 0
    assert latencies(off)["ttft"].mean() > latencies(on)["ttft"].mean()


def test_longer_steps_move_the_means_as_host_times_do(own: MeasuredRun) -> None:
    """Host times 0 and 0.5 ms against steps of the mean TPOT: a decode takes as much longer, a queue amplifies it."""
    tpot = float(np.nanmean(own.latencies["tpot"]))
    share = 0.0005 / tpot
    found = [(0.0, True, {"tpot": 0.0, "ttft": 0.1}), (0.0005, True, {"tpot": share, "ttft": 0.1 + 3.3 * share})]
    slopes = step_sensitivity(own, [*found, (0.0, False, {"tpot": 9.0, "ttft": 9.0})])
    assert slopes == pytest.approx({"tpot": 1.0, "ttft": 3.0})


@needs_run
def test_the_public_run_meets_its_targets() -> None:
    run = sharegpt_run(TRACES.parent, TRACES, "rtx-pro-6000-vllm-0.19")
    assert len(run) == 300
    host_time = learn_host_time(run)
    assert 0 <= host_time < 0.002
    judged = run.queued_s >= LEARN_S
    missed = [row for row in compare(run, simulate_run(run, host_time), judged) if row.missed]
    assert not missed
