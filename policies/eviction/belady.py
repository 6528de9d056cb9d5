"""Belady's MIN inside the engine: evicts what is needed last, which takes knowledge of the trace's future."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush

from policies.base import Block, EvictionPolicy, TierInfo

Far = tuple[float, int, int, Block]
"""Minus next use, minus start, number of the ranking, block."""
Soon = tuple[float, int, Block]
"""Next use, number of the ranking, block."""


_GONE = (math.nan, -1)
"""What is current of a block that is not here."""


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
        self._farthest: list[Far] = []
        self._soonest: list[Soon] = []
        """Of those that are used again: what is never used again stays so."""
        self._offered: list[Far] = []
        self._aside: dict[int, Far] = {}
        """Blocks in use, until they are released: what an engine has just computed is what Belady would drop first."""

    def insert(self, block: Block) -> None:
        self._place(block, math.inf if block.private else self._ask(block.key))

    def touch(self, block: Block) -> None:
        use = math.inf if block.private else self._ask(block.key)
        if use != self._current[block.key][0]:
            self._place(block, use)

    def release(self, block: Block) -> None:
        entry = self._aside.pop(block.key, None)
        if entry is not None:
            heappush(self._farthest, entry)
        self.touch(block)

    def victims(self) -> Iterator[Block]:
        heap, offered, current = self._farthest, self._offered, self._current
        for entry in offered:
            if current.get(entry[3].key, _GONE)[1] == entry[2]:
                heappush(heap, entry)
        offered.clear()
        self._catch_up()
        while heap:
            entry = heappop(heap)
            block = entry[3]
            if current.get(block.key, _GONE)[1] != entry[2]:
                continue
            if block.pins:
                self._aside[block.key] = entry
            else:
                offered.append(entry)
                yield block
        for entry in self._aside.values():
            yield entry[3]

    def remove(self, block: Block) -> None:
        del self._current[block.key]
        self._aside.pop(block.key, None)

    def _catch_up(self) -> None:
        """Ask again about the blocks whose next use has passed without a touch."""
        heap, current = self._soonest, self._current
        while heap:
            use, number, block = heap[0]
            if current.get(block.key, _GONE)[1] != number:
                heappop(heap)
                continue
            later = self._ask(block.key)
            if later == use:
                return
            self._place(block, later)

    def _place(self, block: Block, use: float) -> None:
        self._count += 1
        self._current[block.key] = (use, self._count)
        heappush(self._farthest, (-use, -block.start, self._count, block))
        if use != math.inf:
            heappush(self._soonest, (use, self._count, block))
        if len(self._soonest) + len(self._farthest) > 4 * len(self._current) + 128:
            self._compact()

    def _compact(self) -> None:
        """Drop the entries that later rankings have replaced."""
        current = self._current
        self._farthest[:] = [
            entry for entry in (*self._farthest, *self._offered) if current.get(entry[3].key, _GONE)[1] == entry[2]
        ]
        self._soonest[:] = [entry for entry in self._soonest if current.get(entry[2].key, _GONE)[1] == entry[1]]
        self._offered.clear()
        heapify(self._soonest)
        heapify(self._farthest)
