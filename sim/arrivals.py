"""Who sends which request when: at its time in an open trace, after the end of another one in a closed loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

import numpy as np

from sim.clock import ARRIVAL_FIRST, SEND_NEXT, Clock
from sim.invariants import ensure
from traces.request import Request, Trace
from traces.rows import Rows
from traces.sending import Pace


class Arrivals:
    """Sends every request of a trace to `send` once, with the time of sending as its `arrival_s`.

    A request that waits for nobody is due at its time in the trace; in a closed loop one with `after` is due `delay_s`
    after that one has ended. A due request is sent at once, unless `trace.max_parallel` requests are under way: then
    it waits with its sender until one ends, first come first served. The system has not seen it yet, so this wait is
    in `sender_wait_s` and in no latency.

    Each request must be reported to `ended` exactly once, when it has finished or was rejected (also from within
    `send`). A rejected request thus ends at once: its conversation goes on with the next turn after the usual wait.
    Nothing can wait forever, since a request only waits for one before it in the trace.
    """

    def __init__(self, trace: Trace, clock: Clock, send: Callable[[Request], None]) -> None:
        self.sent = 0
        self.under_way = 0
        self.most_under_way = 0
        self.sender_wait_s = 0.0
        """Seconds that due requests waited with their sender, in all."""
        self.barrier_wait_s = 0.0
        """Seconds that requests waited for others to end the round before, in all."""
        self._trace = trace
        self._rows = Rows(trace)
        self._clock = clock
        self._send = send
        self._most = trace.max_parallel
        self._waiting: deque[tuple[float, int]] = deque()
        """(due time, index) of requests that are ready and wait to be sent."""
        self._pace = None if trace.sending is None else Pace(trace.sending)
        self._barriers: Sequence[int] = () if trace.barriers is None else trace.barriers.tolist()
        self._unended = [] if trace.barriers is None else np.bincount(trace.barriers).tolist()
        """Requests of each round that have not ended."""
        self._round = 0
        """The round that may be sent."""
        self._behind: list[tuple[int, float, int]] = []
        """(round, due time, index) of requests of later rounds: a heap."""
        self._releasing = False
        after = np.full(len(trace), -1) if trace.after is None or not trace.closed_loop else trace.after
        starts = after < 0
        self._open: Sequence[int] = range(len(trace)) if starts.all() else np.flatnonzero(starts).tolist()
        self._next_open = 0
        self._planned = -1
        self._followers: dict[int, list[int]] = {}
        for index in np.flatnonzero(after >= 0).tolist():
            self._followers.setdefault(int(after[index]), []).append(index)
        self._open_round()
        self._plan_open()

    def ended(self, index: int) -> None:
        """Request `index` has finished, or was rejected."""
        now = self._clock.now
        if self._pace is not None and self.under_way == self._most:
            self._pace.held(now)
        self.under_way -= 1
        if self._barriers:
            self._unended[self._barriers[index]] -= 1
            self._open_round()
        for follower in self._followers.pop(index, ()):
            assert self._trace.delay_s is not None
            self._at(now + float(self._trace.delay_s[follower]), follower)
        if self._waiting:
            self._release_at(now)

    def check(self) -> None:
        """What holds when the run is over. Raises InvariantError."""
        ensure(self.sent == len(self._trace), "requests were never sent")
        ensure(not self.under_way, "requests were sent and never ended")
        ensure(not any(self._unended), "a round has not ended")
        ensure(self._most is None or self.most_under_way <= self._most, "too many requests were under way at a time")

    def _plan_open(self) -> None:
        """Plans the next request that waits for nobody: one at a time keeps the queue of events short."""
        if self._next_open < len(self._open):
            index = self._open[self._next_open]
            self._next_open += 1
            time = float(self._trace.arrival_s[index])
            if self._most is None and self._pace is None and not self._barriers:
                self._planned = index
                self._clock.at(time, self._send_planned)
            else:
                self._at(time, index, self._plan_open)

    def _send_planned(self) -> None:
        """Sends the request that was planned last, and plans the next one."""
        self._dispatch(self._planned)
        self._plan_open()

    def _at(self, time: float, index: int, then: Callable[[], None] | None = None) -> None:
        def due() -> None:
            if self._barriers and self._barriers[index] > self._round:
                heappush(self._behind, (self._barriers[index], time, index))
            else:
                self._ready(time, index)
            if then is not None:
                then()

        self._clock.at(time, due)

    def _ready(self, time: float, index: int) -> None:
        """A request may be sent from `time` on, which is now."""
        if self._pace is not None:
            self._waiting.append((time, index))
            self._release_at(self._clock.now)
        elif self._most is not None and (self.under_way >= self._most or self._waiting):
            self._waiting.append((time, index))
        else:
            self._dispatch(index)

    def _open_round(self) -> None:
        """Let the next round begin if all of the one before have ended."""
        now = self._clock.now
        while self._round < len(self._unended) - 1 and not self._unended[self._round]:
            self._round += 1
        while self._behind and self._behind[0][0] <= self._round:
            _, time, index = heappop(self._behind)
            self.barrier_wait_s += now - time
            self._at(now, index)

    def _release_at(self, time: float) -> None:
        """Look at `time` what may be sent; once is enough for all that wait."""
        if not self._releasing:
            self._releasing = True
            self._clock.at(time, self._release, ARRIVAL_FIRST if self._pace is None else SEND_NEXT)

    def _release(self) -> None:
        """Sends what may now be sent."""
        self._releasing = False
        now, pace = self._clock.now, self._pace
        while self._waiting and (self._most is None or self.under_way < self._most):
            place = 0
            if pace is not None:
                if (earliest := pace.earliest(now)) > now:
                    self._release_at(earliest)
                    return
                pace.sent(now)
                place = pace.chosen(len(self._waiting))
            due_s, index = self._waiting[place]
            del self._waiting[place]
            self.sender_wait_s += now - due_s
            self._dispatch(index)

    def _dispatch(self, index: int) -> None:
        self.sent += 1
        self.under_way += 1
        if self.under_way > self.most_under_way:
            self.most_under_way = self.under_way
        request = self._rows.request(index)
        request.arrival_s = self._clock.now
        self._send(request)
