"""Told the steps of a run, the simulator's times; and what a model without contention does not see."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from calibration.mini_engine.engine import StepRecord
from calibration.mini_engine.priced import step_seconds
from calibration.mini_engine.setting import PAGE, VARIANTS
from calibration.mini_engine.teacher import Links, teach
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from kvsim.cli.main import run
from sim.cost.step import StepCost

MODEL, PROFILE = load_model("llama-3.1-8b"), load_profile("h100-sxm")
PAGE_BYTES = PAGE * MODEL.kv_bytes_per_token
COST = StepCost(MODEL, PROFILE)


def _steps(variant, pages=0, every=5, slower=0.0):
    """A hundred steps as the cost model has them; each fifth starts `pages` pages both ways."""
    steps, now = [], 0.0
    for number in range(100):
        chunks = ((512, 1024),) if number % 10 == 1 else ()
        seconds = step_seconds(COST, 8, 9000 + 8 * number, 8 + len(chunks), chunks) * (1 + slower)
        submitted = {"h2d": pages, "d2h": pages} if pages and number % every == 0 else {}
        steps.append(StepRecord(now, now + seconds, 8, 9000 + 8 * number, 8 + len(chunks), chunks, {}, submitted))
        now += seconds
    return steps


def _lesson(steps, variant="C", **options):
    chosen = VARIANTS[variant]
    return teach(steps, COST, Links(PROFILE, chosen, PAGE_BYTES), chosen, **options)


def test_without_copies_it_is_exact():
    lesson = _lesson(_steps("C"))
    errors = lesson.errors()
    assert errors.n == 100
    assert errors.mape < 1e-12
    assert set(lesson.classes) == {"decode", "mixed"}
    assert lesson.errors("h2d") is None


def test_a_slower_machine_is_seen():
    errors = _lesson(_steps("C", slower=0.25)).errors()
    assert errors.bias == pytest.approx(1 / 1.25 - 1)
    assert errors.p99 == pytest.approx(0.2)


def test_copies_move_in_order_and_are_conserved():
    steps = _steps("C", pages=300)
    links = Links(PROFILE, VARIANTS["C"], PAGE_BYTES)
    moved = links.moved(steps)
    submitted = sum(step.submitted.get("h2d", 0) for step in steps)
    assert moved["h2d"].sum() == pytest.approx(submitted, rel=0.02)  # the last ones end after the last step
    rate = moved["h2d"] * PAGE_BYTES / np.array([step.seconds for step in steps])
    assert rate.max() <= 1.01 * PROFILE.copy_model("pcie_h2d").beta
    first = links.moved(steps[:1])["h2d"][0]
    assert first == pytest.approx(300 * steps[0].seconds / links.seconds("h2d", 300), rel=0.01)


def test_only_a_model_with_contention_sees_contention():
    """Steps slowed as the interference model says: the one with it is right, the one without is too fast."""
    steps = _steps("C", pages=250)
    seen = _lesson(steps)
    slowed = [
        replace(step, end=step.start + float(seconds)) for step, seconds in zip(steps, seen.predicted, strict=True)
    ]
    with_it, without = (_lesson(slowed, contention=on).errors("both") for on in (True, False))
    assert with_it.mape < 0.002
    assert without.bias < -0.005
    assert without.mape > 5 * with_it.mape


def test_waiting_for_copies_is_charged():
    """Variant B: a step with copies takes as long as both."""
    steps = _steps("B", pages=64)
    lesson = _lesson(steps, "B")
    links = Links(PROFILE, VARIANTS["B"], PAGE_BYTES)
    extra = lesson.predicted - np.array([step.seconds for step in steps])
    expected = links.seconds("h2d", 64) + links.seconds("d2h", 64)
    assert extra[0] == pytest.approx(expected)
    assert extra[1] == pytest.approx(0.0, abs=1e-12)
    assert lesson.classes[0] == "both"


def test_a_copy_kernel_takes_sms():
    steps = _steps("D", pages=250)
    engine, kernel = _lesson(steps, "C"), _lesson(steps, "D")
    mixed = [i for i, step in enumerate(steps) if step.chunks and engine.classes[i] == "both"]
    assert mixed
    assert all(kernel.predicted[i] > engine.predicted[i] for i in mixed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: file not found"),
        (["h100-sxm"], "not a measured profile"),
    ],
)
def test_wrong_profiles_are_one_line(arguments, message, capsys):
    assert run(["calibrate", "validate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_profile_without_copy_kernels_is_told_at_once(capsys, monkeypatch):
    """Variant D needs them; no engine runs for minutes first."""
    entries = {path: value for path, value in PROFILE.entries.items() if ".kernel." not in path}
    without = replace(PROFILE, kind="measured", entries=entries)
    monkeypatch.setattr("hw_profiles.loader.load_profile", lambda _: without)
    assert run(["calibrate", "validate", "mine.yaml", "--variants", "A,D"]) == 2
    error = capsys.readouterr().err
    assert "links.pcie_h2d: no such copy method for this link, found 'kernel'" in error
    assert error.count("\n") == 1


def test_unknown_variants_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hw_profiles.loader.load_profile", lambda _: SimpleNamespace(kind="measured"))
    assert run(["calibrate", "validate", "mine.yaml", "--variants", "A,F"]) == 2
    assert "unknown variant, found 'F', expected one of A, B, C, D, E" in capsys.readouterr().err
