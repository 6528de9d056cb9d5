"""`kvsim run` and `kvsim report`: what lands on the console, on disk and in the exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import kvsim as public
from sim.invariants import InvariantError
from sim.scenario import Scenario

Kvsim = Callable[..., Any]
TABLES = ("requests", "steps", "transfers", "samples", "preemptions")
FILES = {
    "scenario.yaml",
    "summary.json",
    "profile.json",
    "report.html",
    *(f"{name}.parquet" for name in TABLES),
}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    del summary["simulator"]  # wall and CPU time differ from run to run
    return summary


@pytest.mark.parametrize("order", [1, -1])
def test_settings_of_a_command_may_come_in_any_order(kvsim: Kvsim, folder: Path, order: int) -> None:
    small = folder / "small.yaml"
    few = small.read_text().replace("replicas: 2}", "gpus_per_node: 2}").replace("requests: 60", "requests: 6")
    small.write_text(few)
    first, second = (("--set", f"hardware.{each}=8") for each in ("tp", "gpus_per_node")[::order])
    assert kvsim("run", "small.yaml", *first, *second, "--no-report", "--out", "one").code == 0
    refused = kvsim("run", "small.yaml", "--set", "hardware.tp=8", "--out", "two")
    assert refused.code == 2
    assert "hardware.tp" in refused.err
    vary = ("--vary", "hardware.gpus_per_node=8,16", "--seeds", "1", "--workers", "1")
    assert kvsim("compare", "small.yaml", "--set", "hardware.tp=8", *vary).code == 0


def test_a_run_prints_its_figures_and_writes_its_directory(kvsim: Kvsim, folder: Path) -> None:
    answer = kvsim("run", "small.yaml", "--out", "one")
    assert answer.code == 0
    assert answer.err == ""
    assert names(folder / "one") == FILES
    summary = summary_of(folder / "one")
    assert summary["requests"] == {"arrived": 60, "finished": 60, "rejected": 0}
    lines = [line.split() for line in answer.out.splitlines()]
    ttft = next(words for words in lines if words[:1] == ["TTFT"])
    assert float(ttft[2].replace(",", "")) == pytest.approx(summary["ttft_ms"]["mean"], rel=1e-3)
    hbm = next(words for words in lines if words[:1] == ["HBM"])
    assert int(hbm[1].replace(",", "")) == summary["prefix"]["hit_tokens"]["hbm"]
    computed = next(words for words in lines if words[:1] == ["computed"])
    assert int(computed[1].replace(",", "")) == summary["prefix"]["computed_tokens"]
    rules = [line for line in answer.out.splitlines() if line and set(line) <= {" ", "─"}]
    assert len(rules) == 3  # metrics, tiers, links
    assert sum(line.startswith("replica time: ") for line in answer.out.splitlines()) == 1
    assert answer.out.splitlines()[-2].startswith("SLO met: TTFT p99")
    assert answer.out.splitlines()[-1] == "report: one/report.html"


def test_json_is_one_document_and_the_summary(kvsim: Kvsim, folder: Path) -> None:
    answer = kvsim("run", "small.yaml", "--out", "one", "--json", "--no-report")
    document = json.loads(answer.out)
    del document["simulator"]
    assert document == summary_of(folder / "one")
    assert answer.err == "run directory: one\n"
    assert names(folder / "one") == FILES - {"report.html"}


def test_quiet_says_only_the_verdict_and_the_place(kvsim: Kvsim) -> None:
    lines = kvsim("run", "small.yaml", "--out", "one", "--quiet", "--no-report").out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["SLO met", "run directory"]


def test_the_default_directory_carries_the_scenario_and_its_hash(kvsim: Kvsim, folder: Path) -> None:
    kvsim("run", "small.yaml", "--no-report")
    kvsim("run", "small.yaml", "--no-report")
    kvsim("run", "small.yaml", "--no-report", "--seed", "1")
    runs = sorted((folder / "out").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert run.name == f"small-{summary_of(run)['config_sha256'][:8]}"


def test_settings_and_seed_reach_the_run(kvsim: Kvsim, folder: Path) -> None:
    settings = (
        "--set",
        "hardware.replicas=1",
        "--set",
        "tiers.dram.capacity=1 GiB",
        "--set",
        "trace.limit=10",
    )
    assert kvsim("run", "small.yaml", *settings, "--seed", "7", "--out", "one", "--no-report").code == 0
    summary = summary_of(folder / "one")
    assert summary["seed"] == 7
    assert summary["hardware"]["replicas"] == 1
    assert summary["tiers"]["dram"]["capacity_bytes"] == 2**30
    assert summary["requests"]["arrived"] == 10
    assert kvsim("run", "small.yaml", "--set", "slo={}", "--out", "two", "--no-report").out.count("No SLO set") == 1


def test_a_run_repeats_from_its_own_folder_and_from_python(kvsim: Kvsim, folder: Path) -> None:
    kvsim("run", "small.yaml", "--set", "tiers.dram.capacity=2 GiB", "--out", "one", "--no-report")
    kvsim("run", "one/scenario.yaml", "--out", "two", "--no-report")
    public.Scenario.load("small.yaml").set("tiers.dram.capacity", "2 GiB").run().save("three")
    for other in ("two", "three"):
        assert summary_of(folder / other) == summary_of(folder / "one")
        for table in TABLES:
            first, second = (pq.read_table(folder / run / f"{table}.parquet") for run in ("one", other))
            assert second.equals(first), table


def test_an_earlier_run_is_replaced_whole(kvsim: Kvsim, folder: Path) -> None:
    kvsim("run", "small.yaml", "--out", "one")
    assert kvsim("run", "one/scenario.yaml", "--set", "trace.limit=10", "--out", "one", "--no-report").code == 0
    assert names(folder / "one") == FILES - {"report.html"}
    assert summary_of(folder / "one")["requests"]["arrived"] == 10


def test_a_folder_with_a_note_beside_the_run_is_left_alone(kvsim: Kvsim, folder: Path) -> None:
    kvsim("run", "small.yaml", "--out", "one", "--no-report")
    (folder / "one" / "notes.md").write_text("mine")
    answer = kvsim("run", "small.yaml", "--out", "one")
    assert answer.code == 2
    assert "notes.md" in answer.err
    assert (folder / "one" / "notes.md").read_text() == "mine"


def test_a_run_can_begin_with_what_another_one_left(kvsim: Kvsim, folder: Path) -> None:
    """`--save-cache-state` adds a file to the run directory; saving without it takes it away again."""
    assert kvsim("run", "small.yaml", "--out", "cold", "--save-cache-state", "--no-report").code == 0
    assert names(folder / "cold") == FILES - {"report.html"} | {"cache_state.parquet"}
    set_it = ("--set", "warm_start=cold/cache_state.parquet")
    assert kvsim("run", "small.yaml", *set_it, "--out", "warm", "--no-report").code == 0
    cold, warm = (summary_of(folder / name)["prefix"]["hit_ratio"] for name in ("cold", "warm"))
    assert warm > cold
    wrong = kvsim("run", "small.yaml", *set_it, "--set", "model=mistral-7b", "--out", "no")
    assert wrong.code == 2
    assert "warm_start: the state has the KV of another model" in wrong.err
    assert not (folder / "no").exists()
    assert kvsim("run", "small.yaml", "--out", "cold").code == 0
    assert names(folder / "cold") == FILES


@pytest.mark.parametrize("place", [".", "link"])
def test_the_folder_may_be_the_current_one_or_a_link(
    place: str, kvsim: Kvsim, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("empty")
    if place == ".":
        monkeypatch.chdir(folder / "empty")
    assert kvsim("run", folder / "small.yaml", "--out", place).code == 0
    assert names(folder / "empty") == FILES
    assert (folder / "link").is_symlink()


def test_a_missed_slo_fails_only_when_asked(kvsim: Kvsim, folder: Path) -> None:
    missed = ("run", "small.yaml", "--set", "slo.ttft_p99=1us", "--no-report", "--out")
    answer = kvsim(*missed, "one")
    assert answer.code == 0
    assert "SLO missed" in answer.out
    assert kvsim(*missed, "two", "--fail-on-slo").code == 1
    assert names(folder / "two") == names(folder / "one")
    assert kvsim("run", "small.yaml", "--no-report", "--out", "three", "--fail-on-slo").code == 0


def test_a_report_is_rebuilt_in_place_or_elsewhere(kvsim: Kvsim, folder: Path) -> None:
    kvsim("run", "small.yaml", "--out", "one")
    first = (folder / "one" / "report.html").read_bytes()
    (folder / "one" / "report.html").unlink()
    assert kvsim("report", "one").out == "one/report.html\n"
    assert (folder / "one" / "report.html").read_bytes() == first
    answer = kvsim("report", "one", "--out", "elsewhere", "--json")
    assert json.loads(answer.out) == {"report": "elsewhere/report.html"}
    assert (folder / "elsewhere" / "report.html").read_bytes() == first


def test_a_broken_invariant_exits_3_and_keeps_the_scenario(
    kvsim: Kvsim, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise InvariantError("a block was freed twice")

    kvsim("run", "small.yaml", "--out", "one")
    monkeypatch.setattr(Scenario, "run", broken)
    answer = kvsim("run", "small.yaml", "--seed", "5", "--out", "one")
    assert answer.code == 3
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert "a block was freed twice" in answer.err
    assert "one" in answer.err
    assert names(folder / "one") == {"scenario.yaml"}
    monkeypatch.undo()
    assert Scenario.load(folder / "one" / "scenario.yaml").spec.seed == 5


def test_an_unexpected_error_exits_3_and_shows_where(kvsim: Kvsim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scenario, "run", lambda *_, **__: 1 / 0)
    answer = kvsim("run", "small.yaml")
    assert answer.code == 3
    assert "ZeroDivisionError" in answer.err
    assert "Traceback" in answer.err


BEGINS = """\
from pathlib import Path
from policies.eviction.lru import LRU

class Mine(LRU):
    def insert(self, block):
        super().insert(block)
        Path("begun").touch()
"""
"""A policy that says when the first block is there: the run is under way, and far from its end."""


def test_interrupting_exits_130_and_leaves_nothing(folder: Path) -> None:
    (folder / "mine.py").write_text(BEGINS)
    long = (folder / "small.yaml").read_text().replace("requests: 60", "requests: 20000")
    (folder / "long.yaml").write_text(long + "policies: {eviction: 'mine.py:Mine'}\n")
    command = [sys.executable, "-m", "kvsim", "run", "long.yaml", "--out", "one"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / "begun").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out == ""
    assert not (folder / "one").exists()


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "kvsim", "run", "small.yaml", "--out", "one", "--no-report"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "one" / "summary.json").exists()


def test_a_timeline_is_written_on_request(kvsim, folder):
    """By `run`, again by `report`, for as many requests as asked; a new run takes an old one away."""
    answer = kvsim("run", "small.yaml", "--out", "one", "--timeline", "-q")
    assert answer.code == 0
    assert "timeline: one/timeline.json (all 60 finished requests)" in answer.out.replace(str(folder) + "/", "")
    whole = json.loads((folder / "one" / "timeline.json").read_text())["traceEvents"]
    answer = kvsim("report", "one", "--timeline-requests", "3", "--json")
    assert json.loads(answer.out)["timeline"].endswith("timeline.json")
    assert "the first 3 of 60 finished requests" in answer.err
    assert len(json.loads((folder / "one" / "timeline.json").read_text())["traceEvents"]) < len(whole)
    assert kvsim("run", "small.yaml", "--out", "one", "-q").code == 0
    assert not (folder / "one" / "timeline.json").exists()
    assert kvsim("report", "one", "--timeline-requests", "0").code == 2


def test_a_snapshot_and_a_state_of_a_time(kvsim):
    """`--save-snapshot-at` and `--save-cache-state-at` add files; a run can begin with either."""
    times = ("--save-snapshot-at", "1s", "--save-cache-state-at", "1s")
    assert kvsim("run", "small.yaml", "--out", "cold", *times, "--no-report").code == 0
    for file in ("snapshot.json", "cache_state.parquet"):
        assert kvsim("run", "small.yaml", "--set", f"warm_start=cold/{file}", "--out", "warm", "--no-report").code == 0
    wrong = kvsim("run", "small.yaml", "--save-snapshot-at", "soon")
    assert wrong.code == 2
    assert "--save-snapshot-at" in wrong.err
