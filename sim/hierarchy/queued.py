"""Which waiting requests will look for a block: what a replica's queue says to the eviction policies that ask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from sim.engine.sequence import Sequence as Seq


class QueueIndex:
    """The requests in the queue of one replica, by the blocks of their prompts.

    Nothing is kept until somebody asks for a place; from then on O(log n) per block of a request that comes or goes.
    """

    def __init__(self) -> None:
        self._waiting: Callable[[], Sequence[Seq]] = tuple
        self._tell: Callable[[QueueIndex], None] | None = None
        self._kept = False
        self._here: set[int] = set()
        self._by_key: dict[int, list[tuple[int, int]]] = {}
        """Place in the queue and number of the requests that wait with a key, and of some that no longer do."""

    def watch(self, waiting: Callable[[], Sequence[Seq]], tell: Callable[[QueueIndex], None]) -> None:
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
            for seq in self._waiting():
                self.came(seq)
        entries = self._by_key.get(key)
        waiting = self._waiting()
        if not entries or not waiting:
            return math.inf
        return float(max(0, entries[0][0] - waiting[0].queued))

    def came(self, seq: Seq) -> None:
        """A request waits (again)."""
        self._here.add(seq.index)
        for key in seq.keys:
            heappush(self._by_key.setdefault(key, []), (seq.queued, seq.index))

    def went(self, seq: Seq) -> None:
        """A request waits no longer."""
        here = self._here
        here.discard(seq.index)
        for key in seq.keys:
            entries = self._by_key.get(key)
            while entries and entries[0][1] not in here:
                heappop(entries)
            if not entries:
                self._by_key.pop(key, None)
