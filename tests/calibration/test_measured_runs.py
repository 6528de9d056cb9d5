"""Measured runs: read, simulated, compared; the public run of vLLM meets its targets."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from calibration.measured_run import SHAREGPT, MeasuredRun, read_run, sharegpt_run
from calibration.validate_runs import (
    END,
    LEARN_S,
    TARGETS,
    compare,
    given_host_time,
    latencies,
    learn_host_time,
    rejected,
    simulate_run,
    step_sensitivity,
)
from hw_profiles.errors import InputError
from kvsim.cli.main import run as kvsim

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
        ({"input_tokens": None}, r"run.jsonl:2: input_tokens: .*a whole number"),
        ({"output_tokens": 0}, r"run.jsonl:2: output_tokens: found 0, expected a whole number from 1"),
        ({"output_tokens": 6.5}, r"run.jsonl:2: output_tokens: found 6.5, expected a whole number"),
        ({"hash_ids": None}, r"run.jsonl:2: hash_ids: found null, expected a list of ids"),
        ({"hash_ids": "abc"}, r"run.jsonl:2: hash_ids: found \"abc\", expected a list of ids"),
        ({"hash_ids": ["1", "2"]}, r"run.jsonl:2: hash_ids: found \"1\", expected whole numbers"),
        ({"hash_ids": [1]}, r"run.jsonl:2: hash_ids: found 1 ids, expected 2 \(32 tokens in blocks of 16\)"),
        ({"hash_ids": [1, 2, 3]}, r"run.jsonl:2: hash_ids: found 3 ids, expected 2"),
        (
            {"input_tokens": 33, "hash_ids": [1, 2, 3, 4]},
            r"run.jsonl:2: hash_ids: found 4 ids, expected 2 .*with or without the partial last one",
        ),
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
        ({**HEAD, "block_tokens": 0}, r"run.jsonl:1: block_tokens: found 0, expected a whole number from 1"),
        ({**HEAD, "block_tokens": "16"}, r"run.jsonl:1: block_tokens: found \"16\", expected a whole number"),
        ({**HEAD, "prefix_caching": "no"}, "run.jsonl:1: prefix_caching: found 'no', expected true or false"),
        ({**HEAD, "name": 3}, "run.jsonl:1: name: found 3, expected text"),
        ({**HEAD, "hardware": 2}, "run.jsonl:1: hardware: found 2, expected a mapping"),
        ({**HEAD, "hardware": {"profile": "h100-sxm"}}, "run.jsonl:1: hardware: .* the profile stands beside it"),
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
    assert found.seconds == pytest.approx(0.0007, abs=2e-5)
    assert not found.doubt
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
    host_time, doubt = learn_host_time(run)
    assert not doubt
    assert 0 <= host_time < 0.002
    judged = run.queued_s >= LEARN_S
    missed = [row for row in compare(run, simulate_run(run, host_time), judged) if row.missed]
    assert not missed


def requests(number: int, **values: object) -> list[dict[str, object]]:
    """Alike requests a second apart; what is given as a list is that of each."""
    rows = []
    for i in range(number):
        own = {key: value[i] if isinstance(value, list) else value for key, value in values.items()}
        times = {"queued_s": float(i), "first_token_s": i + 0.1, "last_token_s": i + 0.5}
        rows.append({**ROW, **times, **own})
    return rows


@pytest.mark.parametrize("block", [16, 64, 512])
@pytest.mark.parametrize("partial", [False, True])
def test_ids_are_of_blocks_of_the_heads_size(block: int, partial: bool, tmp_path: Path) -> None:
    """The second prompt begins as the first; the engine's blocks stay its own."""
    tokens = 1024 + 8
    ids = [[*range(1024 // block), *([9000 + i] if partial else [])] for i in range(2)]
    rows = requests(2, input_tokens=tokens, hash_ids=ids)
    run = read_run(written(tmp_path / "run.jsonl", *rows, head={**HEAD, "block_tokens": block}))
    assert simulate_run(run).tables["requests"]["hit_hbm_tokens"].to_pylist() == [0, 1024]


def test_what_else_ran_is_simulated(tmp_path: Path) -> None:
    """Ranks, replicas, routers and tiers of the head are those of the scenario."""
    ids = list(range(64))
    rows = [{**row, "hash_ids": [*ids, 100 + i]} for i, row in enumerate(requests(4, input_tokens=1040))]
    found = {}
    sections: dict[str, dict[str, object]] = {
        "one": {},
        "ranks": {"hardware": {"tp": 4}},
        "replicas": {"hardware": {"replicas": 2}, "routing": "least_loaded"},
        "host": {"tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "8 GiB"}], "policies": {"offload": "none"}},
    }
    for name, more in sections.items():
        found[name] = simulate_run(read_run(written(tmp_path / "run.jsonl", *rows, head={**HEAD, **more})))
    assert found["ranks"].summary["ttft_ms"]["mean"] < found["one"].summary["ttft_ms"]["mean"]
    assert set(found["replicas"].tables["requests"]["replica"].to_pylist()) == {0, 1}
    assert set(found["host"].summary["tiers"]) == {"hbm", "dram"}
    with pytest.raises(InputError, match=r"run.jsonl:1: hardware.tp: found '3'"):
        simulate_run(read_run(written(tmp_path / "run.jsonl", *rows, head={**HEAD, "hardware": {"tp": "3"}})))


def test_what_a_scenario_refuses_names_the_head(tmp_path: Path) -> None:
    rows = requests(1, input_tokens=32)
    with pytest.raises(InputError, match=r"run.jsonl:1: engine.block_tokens.*found 16, expected a divisor of 24"):
        simulate_run(read_run(written(tmp_path / "run.jsonl", *rows, head={**HEAD, "block_tokens": 24})))
    head = {**HEAD, "engine": {"max_num_seq": 3}}
    with pytest.raises(InputError, match=r"run.jsonl:1: .*max_num_seq"):
        simulate_run(read_run(written(tmp_path / "run.jsonl", *rows, head=head)))


def test_the_host_time_of_the_head_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = requests(12, input_tokens=320)
    slow = {**HEAD, "engine": {**HEAD["engine"], "host_time": "50 ms"}}  # type: ignore[dict-item]
    plain, own = (read_run(written(tmp_path / f"{i}.jsonl", *rows, head=h)) for i, h in enumerate((HEAD, slow)))
    assert (given_host_time(plain), given_host_time(own)) == (None, 0.05)
    with_it, asked = simulate_run(own), simulate_run(plain, 0.05)
    assert list(latencies(with_it)["tpot"]) == list(latencies(asked)["tpot"])
    assert latencies(with_it)["tpot"].min() > 0.05
    kvsim(["validate", own.source])
    output = capsys.readouterr().out
    assert "host time per step: 50.0 ms, as the run gives it" in output
    assert "judged are all of them; simulated: the same requests, " in output
    assert "error: simulated / measured - 1" in output
    assert "fitted to public measurements" in output
    assert "12 of 12 requests judged" in output


def test_rejections_are_said_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths: list[object] = [320] * 15
    lengths[1] = lengths[12] = 200_000
    path = written(tmp_path / "run.jsonl", *requests(15, input_tokens=lengths))
    run = read_run(path)
    result = simulate_run(run)
    assert rejected(result) == {"longer than the model's context": 2}
    rows = {row.metric: row for row in compare(run, result, np.ones(15, dtype=bool))}
    assert rows["e2e_mean"].measured == pytest.approx(np.delete(run.latencies["e2e"], [1, 12]).mean())
    kvsim(["validate", str(path)])
    found = capsys.readouterr()
    assert "rejects 2 of 15 requests, which are not judged: 2 longer than the model's context" in found.err
    assert "4 of 15 requests judged" in found.out


def test_a_run_of_which_all_is_rejected_is_refused(tmp_path: Path) -> None:
    run = read_run(written(tmp_path / "run.jsonl", *requests(3, input_tokens=200_000)))
    with pytest.raises(InputError, match=r"run.jsonl: the simulator rejects every request \(3 longer than the model's"):
        learn_host_time(run)


@pytest.mark.parametrize(("slower", "seconds"), [(0.01, 0.0), (10.0, 0.004)])
def test_a_host_time_at_the_end_of_its_range_is_said(
    slower: float, seconds: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = [i + 0.1 + slower * 5 * 0.007 for i in range(3)]
    path = written(tmp_path / "run.jsonl", *requests(3, last_token_s=last))
    assert learn_host_time(read_run(path)) == (seconds, END)
    kvsim(["validate", str(path)])
    assert END in capsys.readouterr().out
    kvsim(["validate", str(path), "--json"])
    assert END in capsys.readouterr().err


@pytest.mark.parametrize(("number", "itself"), [(5, True), (12, False)])
def test_a_run_that_is_judged_on_itself_says_so(
    number: int, itself: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "run.jsonl", *requests(number))
    kvsim(["validate", str(path)])
    output = capsys.readouterr().out
    assert ("judged on the requests it was learnt from" in output) == itself


@pytest.mark.filterwarnings("error")
def test_requests_of_one_token_have_no_tpot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "one.jsonl", *requests(12, output_tokens=1))
    assert kvsim(["validate", str(path), "--all"]) == 0
    output = capsys.readouterr().out
    assert "no request of the first 10 s decodes" in output
    assert "tpot" not in output
    assert "nan" not in output
    some = read_run(written(tmp_path / "some.jsonl", *requests(12, output_tokens=[1, 6] * 6)))
    rows = {row.metric: row for row in compare(some, simulate_run(some), some.queued_s >= 10)}
    assert rows["tpot_mean"].measured == pytest.approx(0.4 / 5)
