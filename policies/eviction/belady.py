"""Belady's MIN inside the engine: evicts what is needed last, which takes knowledge of the trace's future."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush

from policies.base import Block, EvictionPolicy, TierInfo

Entry = tuple[float, int, int, Block]
"""Sign x next use, minus start, number of the ranking, block."""


class Belady(EvictionPolicy):
    """A bound, not a policy to deploy (clairvoyant, arrival order): evicts the block that is next used last.

    Of blocks that the same request uses next, and of those never used again, the deepest in its prompt leaves first, so
    that prefixes stay whole. The future is the order in which requests arrive. It is no proven optimum here: an engine
    uses blocks when it admits requests, needs whole prefixes, prices a miss by its recomputation, and cannot refuse to
    take in a block that it computes. `kvsim cache --policy belady` is the optimum for block hits of a fixed sequence of
    accesses, with such refusals. Refused where the future is not known, as with closed-loop load.

    Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2),
    1966; optimality of farthest next use: R. L. Mattson et al., "Evaluation techniques for storage hierarchies", IBM
    Systems Journal 9(2), 1970.

    Complexity: O(log n) amortised per operation. A block's next use is asked for when it is inserted, touched and
    released, and again when it is the soonest of all: only that one can have come and gone without a touch.
    """

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        if tier.next_use is None:
            raise ValueError("it needs the trace's future; closed-loop load has none")
        self._ask: Callable[[int], float] = tier.next_use
        self._count = 0
        self._current: dict[int, tuple[float, int]] = {}
        """Next use by key, and the number of the ranking that found it."""
        self._farthest: list[Entry] = []
        self._soonest: list[Entry] = []
        self._offered: list[Entry] = []

    def insert(self, block: Block) -> None:
        self._place(block)

    def touch(self, block: Block) -> None:
        self._place(block)

    release = touch

    def victims(self) -> Iterator[Block]:
        for entry in self._offered:
            if self._is_current(entry):
                heappush(self._farthest, entry)
        self._offered.clear()
        self._catch_up()
        heap = self._farthest
        while heap:
            entry = heappop(heap)
            if self._is_current(entry):
                self._offered.append(entry)
                yield entry[3]

    def remove(self, block: Block) -> None:
        del self._current[block.key]

    def _catch_up(self) -> None:
        """Ask again about the blocks whose next use has passed without a touch."""
        heap = self._soonest
        while heap:
            entry = heap[0]
            block = entry[3]
            if not self._is_current(entry):
                heappop(heap)
            elif self._next_use(block) > entry[0]:
                self._place(block)
            else:
                return

    def _next_use(self, block: Block) -> float:
        return math.inf if block.private else self._ask(block.key)

    def _place(self, block: Block) -> None:
        use = self._next_use(block)
        self._count += 1
        self._current[block.key] = (use, self._count)
        heappush(self._farthest, (-use, -block.start, self._count, block))
        heappush(self._soonest, (use, -block.start, self._count, block))
        if len(self._soonest) + len(self._farthest) > 4 * len(self._current) + 128:
            self._compact()

    def _compact(self) -> None:
        """Drop the entries that later rankings have replaced."""
        self._soonest[:] = [entry for entry in self._soonest if self._is_current(entry)]
        self._farthest[:] = [(-use, depth, count, block) for use, depth, count, block in self._soonest]
        self._offered.clear()
        heapify(self._soonest)
        heapify(self._farthest)

    def _is_current(self, entry: Entry) -> bool:
        current = self._current.get(entry[3].key)
        return current is not None and current[1] == entry[2]
