"""A plan's answer and its neighbours with other seeds: does the verdict hold for another draw of the same load?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hw_profiles.errors import InputError
from sim.whatif.grids import with_value
from sim.whatif.interval import seeds_interval
from sim.whatif.plan import Plan, PlanJob
from sim.whatif.points import Point, PointJob, run_point
from sim.whatif.pool import run_all
from sim.whatif.runs import Job


@dataclass(frozen=True)
class SeedCheck:
    """One value with several seeds, seed by seed: in how many it met the SLO, and each target's value (ms).

    intervals    90 % interval (Student's t) of the mean of each target's value; None where a run has no value, and
                 where all are the same
    """

    index: int
    shown: str
    seeds: tuple[int, ...]
    met: tuple[bool, ...]
    values: Mapping[str, tuple[float | None, ...]]
    intervals: Mapping[str, tuple[float, float] | None]


def with_seeds(
    plans: Sequence[Plan],
    jobs: Sequence[PlanJob],
    seeds: int,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Plan]:
    """`plans` with the checks of their answers and the values beside those, run to the end with `seeds` seeds each.

    From the scenario's own seed on; a plan without an answer has the value that came nearest. Raises InputError where
    the seed changes nothing of the load.
    """
    for job in jobs:
        if not job.job.scenario.spec.trace.drawn:
            text = "nothing of this load is drawn by the seed, so runs with other seeds are the same"
            raise InputError(text, where="--seeds", found=seeds, allowed="trace.spread_arrivals or trace.arrival_rate")
    asked = [
        (number, point, seed, _job(jobs[number], plan, point, seed))
        for number, plan in enumerate(plans)
        for point in _beside(plan)
        for seed in (jobs[number].job.scenario.spec.seed + k for k in range(seeds))
    ]
    ended = 0

    def tick(_: int, __: Point) -> None:
        nonlocal ended
        ended += 1
        if progress is not None:
            progress(ended, len(asked))

    answers = run_all(run_point, [job for *_, job in asked], workers=workers, done=tick)
    found: dict[tuple[int, int], list[tuple[int, Point]]] = {}
    for (number, point, seed, _), answer in zip(asked, answers, strict=True):
        found.setdefault((number, point.index), []).append((seed, answer))
    return [
        replace(plan, seeds=tuple(_check(found[key]) for key in found if key[0] == number))
        for number, plan in enumerate(plans)
    ]


def _beside(plan: Plan) -> list[Point]:
    """The answer and what was run nearest to it on both sides; without an answer, the nearest miss."""
    ran = [point for point in plan.points if point.failed is None]
    if plan.answer is None:
        whole = [point for point in ran if point.whole]
        return [min(whole, key=lambda point: point.worst[1])] if whole else []
    at = next(place for place, point in enumerate(ran) if point.index == plan.answer.index)
    return ran[max(0, at - 1) : at + 2]


def _job(job: PlanJob, plan: Plan, point: Point, seed: int) -> PointJob:
    changed = with_value(job.job.scenario, plan.path, plan.values[point.index]).set("seed", seed)
    run = Job.of(job.job.label, changed, strict=job.job.strict)
    return PointJob(run, point.index, point.shown, job.prices, job.attainment, whole=True, tolerant=True)


def _check(runs: Sequence[tuple[int, Point]]) -> SeedCheck:
    points = [point for _, point in runs]
    first = points[0]
    values = {key: tuple(point.targets[key]["value_ms"] for point in points) for key in first.targets}
    intervals = {
        key: None if None in found else seeds_interval(np.array(found, dtype=np.float64))
        for key, found in values.items()
    }
    met = tuple(point.met for point in points)
    return SeedCheck(first.index, first.shown, tuple(seed for seed, _ in runs), met, values, intervals)
