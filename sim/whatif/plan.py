"""The least hardware, or the highest rate, that meets an SLO: bracketing and bisection over runs of the same load.

Runs of one search share every random stream, so what differs between two of them is the hardware and not luck. A search
is exact where more hardware never makes the SLO fail. Queues and routing may break that by a little: so it goes on
below close misses, and elsewhere if the largest value misses closely. Both neighbours of the answer are run: the one
below it misses, and if one above misses too the answer says so. A run ends early only if nothing could save its SLO
any more (`sim.whatif.early`), but for the last value, which says by how much an SLO is missed that nothing meets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hw_profiles.errors import InputError
from sim.scenario import Scenario
from sim.whatif.grids import Search, search_of, with_value
from sim.whatif.plan_notes import notes
from sim.whatif.points import Point, PointJob, run_point
from sim.whatif.pool import run_as_asked
from sim.whatif.prices import Prices
from sim.whatif.runs import Job

if TYPE_CHECKING:
    from sim.whatif.plan_seeds import SeedCheck

ATTAINMENT = "attainment"
CLOSE = 1.2
"""A value up to this many times its limit is a miss that the luck of queues and routing may have made."""
PATIENCE_CLOSE, PATIENCE_UNKNOWN = 4, 2
"""Misses in a row that end the search below the answer: close ones, and ones that ended early."""
LEAST_SHARE = 0.5
"""An attainment is above this: a limit of single requests (`ttft=2s`) then holds for the median, as which it runs."""


@dataclass(frozen=True)
class Plan:
    """The answer for one variant: `answer` is None if nothing that was tried meets the SLO.

    points: every run that the search asked for, in the order of its values; notes: what to know about the answer.
    path, values, shown: what was searched, each value that could have been tried, and its name; seeds: checks of
    `sim.whatif.plan_seeds`, if they were asked for.
    """

    label: str
    what: str
    answer: Point | None
    points: tuple[Point, ...]
    notes: tuple[str, ...]
    path: str = ""
    values: tuple[Any, ...] = ()
    shown: tuple[str, ...] = ()
    seeds: tuple[SeedCheck, ...] = ()

    def document(self) -> dict[str, Any]:
        """The plan as JSON; what runs take for granted and warn of is told once, as of the answer's or the last run."""
        found = asdict(self)
        told = self.answer or next((point for point in reversed(self.points) if point.whole), None)
        for point in (found["answer"], *found["points"]):
            for key in ("assumptions", "warnings") if point is not None else ():
                del point[key]
        return {
            **found,
            "assumptions": [] if told is None else list(told.assumptions),
            "warnings": [] if told is None else list(told.warnings),
        }


@dataclass(frozen=True)
class PlanJob:
    """A search to make. attainment: least share of requests within every limit, None if not asked for."""

    job: Job
    find: str
    among: tuple[Any, ...]
    prices: Prices
    attainment: float | None = None


def parse_slo(text: str) -> tuple[dict[str, str], float | None]:
    """`ttft_p99=2s,tpot_p95=50ms`, or `ttft=2s,tpot=50ms,attainment=90%`: limits as a mapping, and the attainment.

    Raises InputError; the scenario checks names and times.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value) or key in found:
            allowed = "METRIC=TIME, each once, such as ttft_p99=2s,tpot_p95=50ms"
            raise InputError("", where="--slo", found=part.strip() or text, allowed=allowed)
        found[key] = value
    share = found.pop(ATTAINMENT, None)
    if share is None:
        return found, None
    return {key if "_" in key else f"{key}_p50": value for key, value in found.items()}, _share(share)


def with_slo(scenario: Scenario, text: str | None) -> Scenario:
    """The scenario with the targets in `text` in place of its own. Raises InputError if it then has none."""
    if text is not None:
        targets, share = parse_slo(text)
        try:
            scenario = scenario.set("slo", targets or scenario.document.get("slo", {}))
        except InputError as error:
            near = (*(error.near or ()), ATTAINMENT) if share is None else error.near
            raise InputError(
                error.message, where="--slo", found=error.found, allowed=error.allowed, near=near
            ) from None
    if not scenario.spec.slo:
        raise InputError("no target", where="--slo", allowed="ttft_p99=2s,tpot_p95=50ms, or slo: in the scenario")
    return scenario


def run_plan(job: PlanJob) -> Plan:
    """Search for one scenario, in this process. Raises InputError."""
    return run_plans([job], workers=1)[0]


def run_plans(
    jobs: Sequence[PlanJob], *, workers: int, progress: Callable[[int, int], None] | None = None
) -> list[Plan]:
    """Search for every scenario on `workers` processes; `progress` is called with (searches that ended, in all).

    A process that has nothing to do makes the run that a search will ask for next if the one under way meets the SLO,
    or if it misses: answers do not depend on the number of processes. Raises InputError.
    """
    searches = [_Searching(job) for job in jobs]

    def ask(busy: set[tuple[int, int]]) -> list[tuple[tuple[int, int], PointJob]]:
        wanted: list[tuple[int, int]] = []
        for guess in (None, False, True):
            for number, search in enumerate(searches):
                key = (number, search.next({i for n, i in busy if n == number}, guess))
                if key[1] >= 0 and key not in busy and key not in wanted:
                    wanted.append(key)
        if all(search.next(set(), None) < 0 for search in searches):
            raise StopIteration
        return [(key, searches[key[0]].job_of(key[1])) for key in wanted]

    def done(key: tuple[int, int], point: Point) -> None:
        searches[key[0]].points[key[1]] = point
        if progress is not None:
            progress(sum(search.next(set(), None) < 0 for search in searches), len(searches))

    run_as_asked(run_point, ask, workers=workers, done=done)
    return [search.plan() for search in searches]


class _Need(Exception):  # noqa: N818 -- how a search asks for a run
    """The search cannot go on without the point of this index."""


class _Searching:
    """One search: what it knows, and which run it needs next."""

    def __init__(self, job: PlanJob) -> None:
        self.job = job
        self.scenario = job.job.scenario
        self.search: Search = search_of(job.find, self.scenario, job.among, job.prices)
        self.points: dict[int, Point] = {}

    def next(self, busy: set[int], guess: bool | None) -> int:
        """Index of the run that it needs next, -1 if none; with a `guess` at the verdict of those that are `busy`."""
        assumed = {} if guess is None else dict.fromkeys(busy, guess)
        try:
            self._answer(assumed)
        except _Need as need:
            return int(need.args[0])
        return -1

    def job_of(self, index: int) -> PointJob:
        """The run of a value."""
        job, search = self.job.job, self.search
        changed = with_value(self.scenario, search.path, search.values[index])
        run = Job.of(job.label, changed, strict=job.strict)
        whole = search.linear or index == len(search.values) - 1
        shown = search.shown[index]
        return PointJob(run, index, shown, self.job.prices, self.job.attainment, whole, search.linear)

    def plan(self) -> Plan:
        """The answer, when no run is needed any more."""
        index, used = self._answer({})
        answer = None if index is None else self.points[index]
        points = tuple(self.points[i] for i in sorted(used))
        about, search = notes(self.search, answer, points), self.search
        return Plan(self.job.job.label, search.what, answer, points, about, search.path, search.values, search.shown)

    def _answer(self, assumed: Mapping[int, bool]) -> tuple[int | None, set[int]]:
        """(index of the answer, indices that it took); raises _Need for one that is not known."""
        used: set[int] = set()

        def meets(index: int) -> bool:
            used.add(index)
            if index in self.points:
                return self.points[index].met
            if index in assumed:
                return assumed[index]
            raise _Need(index)

        count = len(self.search.values)
        if self.search.linear:
            found = next((index for index in range(count) if meets(index)), None)
        else:
            found = least(count, self.search.start, meets)
            if found is None:
                found = self._elsewhere(used, meets)
            if found is not None:
                found = self._lowest(found, meets)
            if found is not None and found + 1 < count:
                meets(found + 1)
        return found, used

    def _elsewhere(self, used: set[int], meets: Callable[[int], bool]) -> int | None:
        """A value that meets the SLO though the last one misses: looked for if a run came close, else None.

        Beside the run that came nearest, and below the start in steps that double.
        """
        known = [self.points[index] for index in sorted(used) if index in self.points]
        close = [point for point in known if point.whole and point.rejected is None and point.worst[1] <= CLOSE]
        if not close:
            return None
        nearest = min(close, key=lambda point: point.worst[1]).index
        start, count = self.search.start, len(self.search.values)
        below = [start - 2**k for k in range(start.bit_length())]
        tries = (index for index in (nearest - 1, nearest + 1, *below) if 0 <= index < count)
        return next((index for index in tries if meets(index)), None)

    def _lowest(self, found: int, meets: Callable[[int], bool]) -> int:
        """The first value that meets the SLO, going on below misses that may be those of chance."""
        missed = 0
        for index in range(found - 1, -1, -1):
            if meets(index):
                found, missed = index, 0
                continue
            missed += 1
            if missed >= self._patience(index):
                break
        return found

    def _patience(self, index: int) -> int:
        """How many misses in a row, this one the last, end the search below."""
        point = self.points.get(index)
        if point is None or point.failed is not None or point.rejected is not None:
            return 1
        if point.stopped is not None:
            return PATIENCE_UNKNOWN
        return PATIENCE_CLOSE if point.worst[1] <= CLOSE else 1


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


def _share(text: str) -> float:
    number, percent = text.removesuffix("%").strip(), text.endswith("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = float("nan")
    if not LEAST_SHARE < value <= 1:
        allowed = "a share above 50 % and up to 100 %, such as 95%"
        raise InputError("", where="--slo", path=ATTAINMENT, found=text, allowed=allowed)
    return value
