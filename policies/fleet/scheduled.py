"""So many replicas at such a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policies.fleet.base import FleetWindow, Scaling, Start, Stop
from policies.options import seconds, whole


class Scheduled(Scaling):
    """The number that `at` gives for the time of the day, from its time on until the next one.

    at      replicas by time since the start of a period: {"0 s": 2, "8 h": 6}
    period  after which it begins again

    Before the first time of the first period, the number of the last. Starts take as long as they take: schedule them
    ahead of the need.
    """

    def __init__(self, *, at: Mapping[str, int], period: float | str = "24 h") -> None:
        if not isinstance(at, Mapping) or not at:
            raise ValueError(f"at: found {at!r}, expected replicas by time, such as {{'0 s': 2, '8 h': 6}}")
        self._period = seconds("period", period, above=True)
        for time in at:
            if seconds("at", time) >= self._period:
                raise ValueError(f"at: found {time!r}, expected times before the end of the period, {period!r}")
        self._at = sorted((seconds("at", time), whole("at", number, 0, 4096)) for time, number in at.items())

    def plan(self, window: FleetWindow) -> int | Iterable[Start | Stop]:
        now = window.now_s % self._period
        begun = [number for time, number in self._at if time <= now]
        return begun[-1] if begun else self._at[-1][1]
