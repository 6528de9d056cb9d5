"""Which waiting requests will look for a block: what a replica's queue says to the eviction policies that ask."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

from sim.engine.queue import Waiting
from sim.engine.sequence import Sequence as Seq

Order = tuple[float, int]
"""What a queue is in the order of (`Waiting.order`)."""


class QueueIndex:
    """The requests in the queue of one replica, by the blocks of their prompts, in the order of the queue: that of
    arrival, of priorities, or of a scheduling policy's ranks.

    Nothing is kept until somebody asks for a place; from then on O(log n) per block of a request that comes or goes.
    """

    def __init__(self) -> None:
        self._waiting: Callable[[], Waiting] | None = None
        self._tell: Callable[[QueueIndex], None] | None = None
        self._kept = False
        self._here: dict[int, Order] = {}
        self._by_key: dict[int, list[tuple[Order, int]]] = {}
        """Order and number of the requests that wait with a key, and of some that no longer do, or not there."""

    def watch(self, waiting: Callable[[], Waiting], tell: Callable[[QueueIndex], None]) -> None:
        """`waiting` gives the queue in question; `tell` is called once, with this, when it is to say who comes."""
        self._waiting, self._tell = waiting, tell
        if self._kept:
            tell(self)

    def place(self, key: int) -> float:
        """How far behind the head of the queue the first request is whose prompt has the block; inf if none waits."""
        if not self._kept:
            self._kept = True
            if self._tell is not None:
                self._tell(self)
            for seq in () if self._waiting is None else self._waiting():
                self.came(seq)
        if self._waiting is None:
            return math.inf
        entries = self._by_key.get(key)
        while entries and self._here.get(entries[0][1]) != entries[0][0]:
            heappop(entries)
        waiting = self._waiting()
        if not entries or not waiting:
            return math.inf
        return waiting.behind_head(entries[0][0])

    def came(self, seq: Seq) -> None:
        """A request waits (again)."""
        assert self._waiting is not None
        order = self._here[seq.index] = self._waiting().order(seq)
        for key in seq.keys:
            heappush(self._by_key.setdefault(key, []), (order, seq.index))

    def went(self, seq: Seq) -> None:
        """A request waits no longer."""
        here = self._here
        here.pop(seq.index, None)
        for key in seq.keys:
            entries = self._by_key.get(key)
            while entries and entries[0][1] not in here:
                heappop(entries)
            if not entries:
                self._by_key.pop(key, None)
