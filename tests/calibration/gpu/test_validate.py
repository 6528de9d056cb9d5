"""From samples to a profile to a verdict, on the CPU: the whole way that a GPU goes, with a model that fits a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration.mini_engine.engine import StepRecord
from calibration.mini_engine.setting import PAGE, VARIANTS
from calibration.mini_engine.teacher import Links, teach
from calibration.mini_engine.verdict import layer_glue
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.step import StepCost


@pytest.mark.slow
def test_the_side_of_the_gpu_computes_what_torch_does(gpu_python):
    """Kernels interpreted, CUDA played: prompts end in the same numbers, loaded pages included; graphs are replayed."""
    done = gpu_python(str(Path(__file__).parent / "engine_rehearsal.py"), interpret=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["variant"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert list(rows) == ["D", "E"]
    for row in rows.values():
        assert (row["outputs"], row["unlike"], row["wrong_pages"]) == (4, 0, 0)
        assert row["loaded_pages"] >= 32
        assert row["replayed"] == row["decode_steps"] > 0
    assert rows["D"]["prefetches"] == 0 < rows["E"]["prefetches"]


@pytest.fixture(scope="module")
def verdict(gpu_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpu")
    measured = gpu_python("-m", "kvsim", "calibrate", "run", "--device", "cpu", "--out", str(folder))
    assert measured.returncode == 0, measured.stderr
    fitted = gpu_python("-m", "kvsim", "calibrate", "fit", str(folder), "--resamples", "0")
    assert fitted.returncode in (0, 1), fitted.stderr  # 1: a busy machine misses held-out targets
    profile = folder / "profile.yaml"
    options = ["--device", "cpu", "--out", str(folder / "engine"), "--variants", "A,B,C", "--json"]
    judged = gpu_python("-m", "kvsim", "calibrate", "validate", str(profile), *options)
    assert judged.returncode in (0, 1), judged.stderr
    return json.loads(judged.stdout), folder


def test_the_profile_is_measured(verdict):
    _, folder = verdict
    profile = load_profile(folder / "profile.yaml")
    assert (profile.name, profile.kind) == ("cpu", "measured")
    assert profile.validity.batch == (1, 16)


def test_every_page_arrives_as_it_left(verdict):
    document, _ = verdict
    assert document["checked_pages"] > 50
    assert document["wrong_pages"] == 0


def test_variants_compute_the_same(verdict):
    """What was offloaded and loaded again gives the same tokens as what never left."""
    document, _ = verdict
    assert document["unlike_outputs"] == 0
    assert document["integrity"]


def test_the_simulator_agrees_with_the_engine(verdict):
    """Told the steps, it is right about how variants differ; left alone, about waiting, and what is shared and moved.

    A machine with other work runs at half its speed when its neighbours' caches are full, and at the next minute
    alone: that is the `pace`, the same for all variants within what repeating changes. What it was while the profile
    was measured is `test_times_are_right_on_a_quiet_machine`'s. A queue that is busy for 0.4 of the time makes
    1 / (1 - 0.4) times as much of it. The median TPOT is not held to that: it lies between requests that decoded
    beside a prompt and those that did not, and jumps.
    """
    document, _ = verdict
    rows = {(row["variant"], row["what"]): row for row in document["rows"]}
    slack, pace = max(0.25, 2 * document["repeat"]), 1 + rows["A", "steps, all: bias"]["error"]
    assert 0.2 < pace < 5
    for name in ("B", "C"):
        assert abs((1 + rows[name, "steps, all: bias"]["error"]) / pace - 1) < slack
    for name in ("A", "C"):
        assert abs(rows[name, "alone, hits in hbm"]["error"]) < 0.05
        assert abs((1 + rows[name, "alone, ttft p50"]["error"]) / pace - 1) < slack / 0.6
    assert rows["C", "alone, hits in dram"]["measured"] > 0
    assert abs(rows["C", "alone, hits in dram"]["error"]) < 0.05
    assert abs(rows["C", "alone, pages h2d"]["error"]) < 0.3
    assert abs(rows["C", "alone, pages d2h"]["error"]) < 0.1


@pytest.mark.slow
def test_times_are_right_on_a_quiet_machine(verdict):
    """One thread's times move by a tenth from minute to minute: `repeat` says it of those that are near each other."""
    document, _ = verdict
    rows = {(row["variant"], row["what"]): row for row in document["rows"]}
    slack = max(0.25, 2 * document["repeat"])
    for name in ("A", "B", "C"):
        assert abs(rows[name, "steps, all: bias"]["error"]) < slack


@pytest.mark.parametrize("name", ["A", "C"])
def test_long_steps_are_told_from_short_ones(verdict, name):
    """Whatever the machine's speed was: the model misses by less than half of what a step of always the same length
    does, and what it takes for long is long."""
    document, folder = verdict
    lesson = _lesson(folder, document["host_s"], name)
    ratio = lesson.predicted / lesson.measured
    missed = np.mean(np.abs(ratio / np.median(ratio) - 1))
    same_length = np.mean(np.abs(np.median(lesson.measured) / lesson.measured - 1))
    assert len(ratio) > 100
    assert missed < 0.5 * same_length
    assert np.corrcoef(np.log(lesson.predicted), np.log(lesson.measured))[0, 1] > 0.9


def _lesson(folder, host_s, name):
    profile, model = load_profile(folder / "profile.yaml"), load_model(str(folder / "engine/config.json"))
    rows = map(json.loads, (folder / f"engine/engine_{name}.jsonl").read_text().splitlines())
    steps = [
        StepRecord(**row | {"chunks": tuple(map(tuple, row["chunks"]))}) for row in rows if row.pop("type") == "step"
    ]
    glue = layer_glue(model, profile, folder / "profile.yaml") * model.layers
    links = Links(profile, VARIANTS[name], PAGE * model.kv_bytes_per_token)
    return teach(steps, StepCost(model, profile, host_s + glue), links, VARIANTS[name])


def test_logs_are_kept(verdict):
    _, folder = verdict
    names = sorted(path.name for path in (folder / "engine").glob("engine_*.jsonl"))
    assert names == ["engine_A.jsonl", "engine_A_again.jsonl", "engine_B.jsonl", "engine_C.jsonl"]
    rows = [json.loads(line) for line in (folder / "engine/engine_C.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["type"] == "step"]
    requests = [row for row in rows if row["type"] == "request"]
    assert len(requests) == 24
    assert sum(step["submitted"].get("h2d", 0) for step in steps) > 0
    assert all(step["end"] > step["start"] for step in steps)
    assert json.loads((folder / "engine/validate.json").read_text())["device"] == "cpu"
