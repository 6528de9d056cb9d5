"""What a validation on a GPU would say of a machine that takes as long as its profile says, without contention."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from calibration.mini_engine import engine
from calibration.mini_engine.priced import PricedExecutor, step_seconds
from calibration.mini_engine.run_record import Run
from calibration.mini_engine.setting import PAGE, VARIANTS
from calibration.mini_engine.settings import GPU
from calibration.mini_engine.teacher import Links, teach
from calibration.mini_engine.verdict import judge
from calibration.mini_engine.workload import draw
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.cost.step import StepCost

HOST_S = 3e-4
PROFILE, MODEL = load_profile("h100-sxm"), load_model(GPU.model)
PAGE_BYTES = PAGE * MODEL.kv_bytes_per_token


def _cost(variant):
    return StepCost(MODEL, PROFILE, HOST_S, GPU.l2_prefetch_bytes(variant, MODEL))


def _run(variant):
    cost, links = _cost(variant), Links(PROFILE, variant, PAGE_BYTES)
    executor = PricedExecutor(
        lambda plan: step_seconds(
            cost, len(plan.decodes), plan.context, plan.rows, [(chunk.tokens, chunk.start) for chunk in plan.chunks]
        ),
        links.seconds,
    )
    scheduler = GPU.scheduler(variant, PAGE_BYTES)
    log = engine.run(draw(GPU.load), scheduler, executor)
    return Run(variant, log, scheduler, {}, HOST_S, 0, 0)


@pytest.fixture(scope="module")
def runs():
    first = {name: _run(variant) for name, variant in VARIANTS.items()}
    return {**first, "A again": first["A"]}


@pytest.fixture(scope="module")
def verdict(runs):
    return judge(runs, GPU, PROFILE, Path(PROFILE.source))


def test_the_load_has_steps_of_every_kind(runs):
    """What is to be validated happens: copies of both directions beside steps, and steps without any."""
    lesson = teach(runs["C"].log.steps, _cost(VARIANTS["C"]), Links(PROFILE, VARIANTS["C"], PAGE_BYTES), VARIANTS["C"])
    classes = Counter(lesson.classes)
    assert min(classes[name] for name in ("decode", "mixed", "h2d", "d2h", "both")) >= 10
    assert classes["h2d"] + classes["both"] > 40
    assert sum(step.seconds for step in runs["C"].log.steps) < 10  # five variants fit into minutes


def test_all_five_variants_are_judged(verdict):
    rows = {(row.variant, row.what): row for row in verdict.rows}
    for name, variant in VARIANTS.items():
        assert abs(rows[name, "steps, decode: mean error"].error) < 1e-9
        assert abs(rows[name, "steps, mixed: mean error"].error) < 1e-9
        if variant.closed_loop:
            assert rows[name, "alone, hits in hbm"].error == 0
            assert abs(rows[name, "alone, tpot p50"].error) < 0.03
    for name in ("C", "D", "E"):
        assert abs(rows[name, "alone, hits in dram"].error) < 0.02
        assert abs(rows[name, "alone, pages h2d"].error) < 0.05
        assert rows[name, "alone, pages d2h"].error == 0
    assert {"B/C", "D/C", "C/E"} <= {row.variant for row in verdict.rows}
    assert verdict.repeat == 0
    assert verdict.integrity


def test_contention_is_large_enough_to_be_seen(verdict):
    """This machine has none: a model with contention is too slow beside copies, by more than steps repeat to."""
    rows = {(row.variant, row.what): row for row in verdict.rows}
    engine_copies, kernel = (rows[name, "steps, both: bias"] for name in ("C", "D"))
    assert abs(engine_copies.without_contention) < 1e-9
    assert 0.005 < engine_copies.error < kernel.error
    waits = rows["B", "steps, both: bias"]  # as if it had waited, which this executor never does
    assert waits.error > 0.2
