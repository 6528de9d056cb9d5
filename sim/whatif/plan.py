"""The least hardware, or the highest rate, that meets an SLO: bracketing and bisection over runs of the same load.

Runs of one search share every random stream, so what differs between two of them is the hardware and not luck. A search
is exact where more hardware never makes the SLO fail. Both neighbours of the answer are run: the one below it misses,
and if the one above misses too the answer says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hw_profiles.errors import InputError
from sim.scenario import Scenario
from sim.whatif.grids import Search, search_of
from sim.whatif.prices import Cost, Prices, cost
from sim.whatif.runs import Job


@dataclass(frozen=True)
class Point:
    """One run of a search: the value, each SLO target as the summary has it, and what the hardware costs."""

    index: int
    shown: str
    met: bool
    targets: Mapping[str, Mapping[str, Any]]
    requests_per_s: float
    cost: Cost

    @property
    def worst(self) -> tuple[str, float]:
        """The target that is nearest to its limit, or furthest beyond it, and value / limit (inf without a value)."""

        def ratio(target: Mapping[str, Any]) -> float:
            value, limit = target["value_ms"], target["target_ms"]
            return float("inf") if value is None else float(value / limit)

        # A target may be met by those that were served and missed for those that were not: missed ones come first.
        key = max(self.targets, key=lambda name: (not self.targets[name]["met"], ratio(self.targets[name])))
        return key, ratio(self.targets[key])


@dataclass(frozen=True)
class Plan:
    """The answer for one variant: `answer` is None if nothing that was tried meets the SLO.

    points: every run that was made, in the order of the search's values; notes: what to know about the answer.
    """

    label: str
    what: str
    answer: Point | None
    points: tuple[Point, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The plan as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PlanJob:
    """A search to make; it holds what goes to another process."""

    job: Job
    find: str
    among: tuple[Any, ...]
    prices: Prices


def parse_slo(text: str) -> dict[str, str]:
    """`ttft_p99=2s,tpot_p95=50ms` as a mapping. Raises InputError; the scenario checks names and times."""
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value) or key in found:
            allowed = "METRIC=TIME, each once, such as ttft_p99=2s,tpot_p95=50ms"
            raise InputError("", where="--slo", found=part.strip() or text, allowed=allowed)
        found[key] = value
    return found


def with_slo(scenario: Scenario, text: str | None) -> Scenario:
    """The scenario with the targets in `text` in place of its own. Raises InputError if it then has none."""
    if text is not None:
        try:
            scenario = scenario.set("slo", dict(parse_slo(text)))
        except InputError as error:
            raise InputError(
                error.message, where="--slo", found=error.found, allowed=error.allowed, near=error.near
            ) from None
    if not scenario.spec.slo:
        raise InputError("no target", where="--slo", allowed="ttft_p99=2s,tpot_p95=50ms, or slo: in the scenario")
    return scenario


def run_plan(job: PlanJob, progress: Callable[[Point], None] | None = None) -> Plan:
    """Search for one scenario. Raises InputError."""
    scenario = job.job.scenario
    search = search_of(job.find, scenario, job.among)
    points: dict[int, Point] = {}

    def meets(index: int) -> bool:
        if index not in points:
            points[index] = _run(scenario, search, index, job)
            if progress is not None:
                progress(points[index])
        return points[index].met

    found = least(len(search.values), search.start, meets)
    notes = []
    if found is None:
        notes.append(_infeasible(points[len(search.values) - 1]))
    else:
        if found == 0:
            notes.append("it meets the SLO at the end of the range: --among may give values beyond it")
        if found + 1 < len(search.values) and not meets(found + 1):
            notes.append(f"{search.shown[found + 1]} misses the SLO again: the margin is thin, so look at every value")
    unpriced = sorted({name for point in points.values() for name in point.cost.unpriced})
    if unpriced:
        notes.append(f"not in the cost, since the price table has no price: {', '.join(unpriced)}")
    ordered = tuple(points[index] for index in sorted(points))
    return Plan(job.job.label, search.what, None if found is None else points[found], ordered, tuple(notes))


def least(count: int, start: int, meets: Callable[[int], bool]) -> int | None:
    """The least index in 0..count-1 that `meets` where all above it do too; None if the last does not.

    Steps away from `start` that double until the answer is bracketed, then bisection.
    """
    step = 1
    if meets(start):
        high, low = start, -1
        while high > 0:
            below = max(0, high - step)
            if not meets(below):
                low = below
                break
            high, step = below, 2 * step
    else:
        low, high = start, count
        while low < count - 1:
            above = min(count - 1, low + step)
            if meets(above):
                high = above
                break
            low, step = above, 2 * step
        if high == count:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def _run(scenario: Scenario, search: Search, index: int, job: PlanJob) -> Point:
    changed = scenario.set(search.path, search.values[index])
    summary = changed.run(strict=job.job.strict).summary
    price = cost(summary, changed.spec.hardware.gpus_per_node, job.prices)
    slo = summary["slo"]
    rate = float(summary["throughput"]["requests_per_s"])
    return Point(index, search.shown[index], bool(slo["met"]), slo["targets"], rate, price)


def _infeasible(last: Point) -> str:
    key, ratio = last.worst
    target = last.targets[key]
    if target["value_ms"] is None:
        return f"no value tried meets the SLO; at {last.shown} no request has a {key}"
    text = f"no value tried meets the SLO; at {last.shown} {key} binds: "
    text += f"{target['value_ms'] / 1e3:.4g} s against {target['target_ms'] / 1e3:.4g} s, {ratio:.3g} times the limit"
    return text if ratio > 1 else f"{text}, but requests were rejected, which miss every limit"
