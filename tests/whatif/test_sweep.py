"""A sweep: a row for each combination, failures are rows, and what was done is not done again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hw_profiles.errors import InputError
from kvsim import Scenario
from sim.whatif import sweep
from sim.whatif.sweep import run_sweep
from sim.whatif.sweep_file import load_sweep
from sim.whatif.variants import expand

SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 20, rate: 4, turns: 2, first_tokens: {mean: 2000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
tiers: [{name: hbm}, {name: dram, capacity: 64 GiB, shared: node}]
"""
SWEEP = """\
schema: kvsim-sweep/1
scenario: small.yaml
set: {seed: 3}
vary:
  policies.eviction: [lru, {name: lru_k, k: 3}]
  hardware.replicas: [1, 2]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SCENARIO)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def test_a_row_for_each_combination_is_what_a_run_says(folder):
    variants = load_sweep(folder / "sweep.yaml").variants
    run_sweep(variants, folder / "out", workers=1)
    found = pq.read_table(folder / "out" / "sweep.parquet").to_pylist()
    assert [(row["policies.eviction"], row["hardware.replicas"]) for row in found] == [
        (policy, n) for policy in ("lru", "lru_k(k=3)") for n in (1, 2)
    ]
    summary = Scenario.load(folder / "small.yaml").set("seed", 3).set("hardware.replicas", 2).run().summary
    assert found[1]["config_sha256"] == summary["config_sha256"]
    assert found[1]["ttft_p99_ms"] == summary["ttft_ms"]["p99"]
    assert {row["error"] for row in found} == {None}
    assert not any("simulator" in name for name in found[0])


@pytest.mark.parametrize(
    "runs",
    [
        "set: {hardware.tp: 4}\nvary: {hardware.gpus_per_node: [4, 8]}\n",
        "vary: {hardware.tp: [2, 4], hardware.gpus_per_node: [4, 8]}\n",
        "sample: {hardware.tp: {choice: [2, 4]}, hardware.gpus_per_node: {choice: [4, 8]}}\nsamples: 6\n",
    ],
)
def test_only_whole_cells_have_to_be_valid(folder, runs):
    (folder / "small.yaml").write_text(SCENARIO.replace("h100-sxm}", "h100-sxm, gpus_per_node: 2}"))
    (folder / "sweep.yaml").write_text(f"schema: kvsim-sweep/1\nscenario: small.yaml\n{runs}")
    variants = load_sweep(folder / "sweep.yaml").variants
    assert {v.scenario.spec.hardware.gpus_per_node for v in variants} == {4, 8}


def test_processes_give_the_same_table(folder):
    variants = load_sweep(folder / "sweep.yaml").variants
    for workers in (1, 2):
        run_sweep(variants, folder / str(workers), workers=workers)
    assert (folder / "1" / "sweep.parquet").read_bytes() == (folder / "2" / "sweep.parquet").read_bytes()


def test_resume_runs_only_what_is_missing_corrupt_or_changed(folder, monkeypatch):
    policy = folder / "mine.py"
    policy.write_text("from policies.eviction.lru import LRU as Mine\n")
    base = Scenario.load(folder / "small.yaml")
    variants = expand(base, [("policies.eviction", ["lru", "fifo", "mine.py:Mine"])])
    out = folder / "out"
    first = run_sweep(variants, out, workers=1)
    ran = []
    simulate = sweep.simulate
    monkeypatch.setattr(
        sweep, "simulate", lambda s, **kw: ran.append(s.spec.policies.eviction.name) or simulate(s, **kw)
    )
    assert run_sweep(variants, out, workers=1, resume=True) == first
    assert ran == []
    (out / "rows" / f"{first[0]['config_sha256']}.json").write_text('{"schema": "kvsim-swe')
    (out / "rows" / f"{first[1]['config_sha256']}.json").unlink()
    policy.write_text("from policies.eviction.fifo import FIFO as Mine\n")
    again = run_sweep(variants, out, workers=1, resume=True)
    assert ran == ["lru", "fifo", "mine.py:Mine"]
    assert again[:2] == first[:2]
    assert again[2]["config_sha256"] != first[2]["config_sha256"]


def test_a_run_that_fails_is_a_row(folder):
    base = Scenario.load(folder / "small.yaml")
    variants = expand(base, [("engine.num_gpu_blocks", [4000, 10**9])])
    rows = run_sweep(variants, folder / "out", workers=1)
    assert rows[0]["error"] is None
    assert "does not fit the HBM" in rows[1]["error"]
    assert len(list((folder / "out" / "rows").glob("*.json"))) == 1  # a failure is tried again on --resume
    assert pq.read_table(folder / "out" / "sweep.parquet")["error"].to_pylist() == [r["error"] for r in rows]


def test_a_full_disk_ends_the_sweep_and_keeps_what_was_written(folder, monkeypatch):
    variants = load_sweep(folder / "sweep.yaml").variants
    write, written = sweep.write_atomic, []

    def full(path, data):
        if len(written) == 2:
            raise InputError("cannot write: No space left on device", where=path)
        written.append(path)
        write(path, data)

    monkeypatch.setattr(sweep, "write_atomic", full)
    with pytest.raises(InputError, match="No space left"):
        run_sweep(variants, folder / "out", workers=1)
    assert sorted((folder / "out" / "rows").iterdir()) == sorted(written)
    monkeypatch.setattr(sweep, "write_atomic", write)
    assert len(run_sweep(variants, folder / "out", workers=1, resume=True)) == 4


def test_killed_at_any_moment_it_goes_on(folder):
    many = SWEEP.replace("[1, 2]", "[1, 2, 3, 4]").replace("small.yaml", str(folder / "small.yaml"))
    (folder / "many.yaml").write_text(many)
    command = [sys.executable, "-m", "kvsim", "sweep", "many.yaml", "--out", "out", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    rows, deadline = folder / "out" / "rows", time.monotonic() + 60
    while len(list(rows.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {file: file.stat().st_mtime_ns for file in rows.glob("*.json")}
    assert kept
    run_sweep(load_sweep(folder / "many.yaml").variants, folder / "out", workers=1, resume=True)
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())
    found = pq.read_table(folder / "out" / "sweep.parquet")
    assert (len(found), set(found["error"].to_pylist())) == (8, {None})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SWEEP.replace("sweep/1", "sweep/2"), "kvsim-sweep/1"),
        (SWEEP.replace("vary:", "varry:"), "did you mean 'vary'"),
        (SWEEP.replace("[1, 2]", "[]"), "vary.hardware.replicas"),
        (SWEEP.replace("[1, 2]", "2"), "a list"),
        (SWEEP.replace("hardware.replicas", "hardware.replica"), "unknown key"),
        (SWEEP.replace("small.yaml", "smal.yaml"), "file not found"),
        (SWEEP.replace("lru,", "lruu,"), "did you mean 'lru'"),
        (SWEEP.replace("set:", "search: {}\nset:"), "search: needs ranges"),
        (SWEEP.replace("vary:", "sample: {}\nvary:"), "either lists or ranges"),
        ("schema: kvsim-sweep/1\nscenario: small.yaml\n", "vary"),
    ],
)
def test_wrong_sweeps_are_one_line(folder, text, words):
    (folder / "sweep.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        load_sweep(folder / "sweep.yaml")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
