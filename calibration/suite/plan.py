"""The whole plan: every point of a suite, what it takes beside the points, and what is dropped when time is short."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from calibration.suite import plan_attention, plan_copies, plan_cpu, plan_kv, plan_memory, plan_products
from calibration.suite.facts import Facts
from calibration.suite.point import Costs, Point
from hw_profiles.errors import InputError

GIB = 2**30
PASSES = 2
OVERHEAD: Mapping[str, float] = {
    "import torch, CUDA context, device and pinned pools": 20.0,
    "compiling kernels": 35.0,  # about 70, half a second each
    "kernels against torch": 15.0,
    "anchors at start, middle and end": 6.0,
}
"""Seconds per run besides the points: estimates, on 16 cores."""
PYTHON_SHARE = 0.15
"""What Python adds to the points, as a share of them."""


@dataclass(frozen=True)
class Plan:
    """Points of one pass, the passes, and the points that a budget left out."""

    points: tuple[Point, ...]
    passes: int = PASSES
    dropped: tuple[Point, ...] = ()
    overhead: Mapping[str, float] | None = None

    @property
    def overhead_s(self) -> float:
        """Seconds per run besides the points."""
        return math.fsum((OVERHEAD if self.overhead is None else self.overhead).values())

    @property
    def points_s(self) -> float:
        """Seconds of all passes over the points."""
        return self.passes * (1 + PYTHON_SHARE) * math.fsum(point.seconds for point in self.points)

    @property
    def seconds(self) -> float:
        """Seconds of the run."""
        return self.overhead_s + self.points_s

    def order(self, number: int) -> list[Point]:
        """Points of one pass, shuffled: neighbours in time are not neighbours in size. The same for the same pass."""
        points = list(self.points)
        random.Random(number).shuffle(points)
        return points

    def within(self, budget_s: float) -> Plan:
        """Leave out points from the lowest priority (highest number) up, the longest first, until it fits.

        Raises InputError when what no profile can do without does not fit.
        """
        kept, seconds = {point.name: point for point in self.points}, self.seconds
        for candidate in sorted(self.points, key=lambda point: (-point.priority, -point.seconds)):
            if seconds <= budget_s or candidate.priority == 0:
                break
            del kept[candidate.name]
            seconds -= self.passes * (1 + PYTHON_SHARE) * candidate.seconds
        if seconds > budget_s:
            least = f"at least {math.ceil(seconds)}"
            raise InputError("too short for the least suite", path="--budget-s", found=budget_s, allowed=least)
        dropped = (*self.dropped, *(point for point in self.points if point.name not in kept))
        return replace(self, points=tuple(kept.values()), dropped=dropped)


def make_plan(facts: Facts, costs: Costs, *, nvme: bool = False, only: Iterable[str] = ()) -> Plan:
    """The suite for a machine; `only` names the benches to take. Raises InputError for one that there is not."""
    if facts.kind == "cpu":
        plan = Plan(tuple(plan_cpu.points(costs)), overhead=plan_cpu.OVERHEAD)
    else:
        plan = Plan(tuple(_gpu_points(facts, costs, nvme)))
    chosen = tuple(only)
    benches = list(dict.fromkeys(point.bench for point in plan.points))
    for name in chosen:
        if name not in benches:
            raise InputError("unknown bench", path="--only", found=name, allowed=benches, near=benches)
    if not chosen:
        return plan
    return Plan(tuple(point for point in plan.points if point.bench in chosen), plan.passes, (), plan.overhead)


def _gpu_points(facts: Facts, costs: Costs, nvme: bool) -> Iterable[Point]:
    largest = min(4 * GIB, 1 << (facts.free_bytes // 8).bit_length() - 1)
    pinned = min(GIB, facts.host_bytes // 8)
    methods = plan_copies.METHODS if facts.kind == "cuda" else ("loop", "kernel")
    yield from plan_memory.stream_points(costs, largest)
    yield from plan_memory.l2_points(costs, facts)
    yield from plan_memory.latency_points(costs)
    if facts.kind == "cuda":
        yield from plan_memory.prefetch_points(costs, facts)
    yield from plan_memory.launch_points(costs)
    yield from plan_attention.decode_points(costs, facts)
    yield from plan_attention.skew_points(costs)
    yield from plan_attention.mla_points(costs, facts)
    yield from plan_attention.prefill_points(costs)
    yield from plan_products.gemm_points(costs, facts)
    yield from plan_products.elementwise_points(costs)
    yield from plan_products.layer_points(costs)
    yield from plan_kv.page_points(costs)
    yield from plan_kv.quantise_points(costs, facts)
    yield from plan_kv.digest_points(costs, facts)
    yield from plan_copies.single_points(costs, pinned)
    yield from plan_copies.block_points(costs, methods, min(plan_copies.MOST_BYTES, pinned))
    yield from plan_copies.shared_points(costs)
    yield from plan_copies.overlap_points(costs)
    yield from plan_copies.host_points(costs, facts, nvme)


def totals(points: Iterable[Point]) -> list[tuple[str, int, int, float]]:
    """(bench, points, held out, seconds of one pass) in the order of the plan."""
    table: dict[str, list[float]] = {}
    for point in points:
        row = table.setdefault(point.bench, [0, 0, 0.0])
        row[0] += 1
        row[1] += point.heldout
        row[2] += point.seconds
    return [(bench, int(count), int(held), seconds) for bench, (count, held, seconds) in table.items()]
