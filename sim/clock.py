"""Simulated time: SimPy's event loop with exact absolute times."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from operator import attrgetter
from typing import Any

import simpy

ARRIVAL_FIRST = 1
SEND_NEXT = 2
STEP_LAST = 3
SNAPSHOT_LAST = 4
"""At equal times, arrivals and finished copies are handled before senders choose among what is ready, and both before
the engine decides its next step; what is only looked at comes after all that happens then."""


class Clock(simpy.Environment):
    """A SimPy environment that calls a function at an absolute time.

    `simpy.Environment.timeout` adds a delay to `now`, which is off by a rounding error from the time that was meant;
    strides and single steps would then disagree in the last digit. Times here are kept as given. A call lies in SimPy's
    queue as it is, without an Event around it, which most of the time of an empty event goes into.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events = 0

    now: float = property(attrgetter("_now"))  # type: ignore[assignment]  # SimPy's, without a frame of Python

    def at(self, time: float, call: Callable[[], None], priority: int = ARRIVAL_FIRST) -> None:
        """Run `call()` at simulated `time` (seconds, not before now)."""
        if time < self._now:
            raise ValueError(f"time ({time}) must not be before the current simulation time ({self._now})")
        self.events += 1
        queue: list[Any] = self._queue  # typed for SimPy's own events
        heappush(queue, (time, priority, next(self._eid), call))

    def skip(self, time: float) -> bool:
        """Go on to `time` (s) at once if nothing else happens until then; False if something does.

        Saves an event where a call has only one thing left to do, a moment later.
        """
        if time < self._now or (self._queue and self._queue[0][0] <= time):
            return False
        self._now = time
        return True

    @property
    def idle(self) -> bool:
        """True when no event is left."""
        return not self._queue

    def step(self) -> None:
        """Handle the next event: a planned call, or an event of SimPy's own."""
        queue: list[Any] = self._queue
        if not queue or isinstance(queue[0][3], simpy.Event):
            super().step()
            return
        self._now, _, _, call = heappop(queue)
        call()

    def run_to(self, time: float) -> None:
        """Run until all that happens at `time` (s) or before has happened."""
        left = [time]
        self.at(time, left.clear, SNAPSHOT_LAST)
        while left:
            self.step()

    def drain(self, every: int | None, hook: Callable[[], None]) -> None:
        """Run until no event is left, calling `hook` after each `every` events (None: never)."""
        queue: list[Any] = self._queue
        left = inf if every is None else every
        while queue:
            if isinstance(queue[0][3], simpy.Event):
                self.step()
            else:
                self._now, _, _, call = heappop(queue)
                call()
            left -= 1
            if not left and every is not None:
                left = every
                hook()
