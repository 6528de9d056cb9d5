"""Base of policies that give every block a rank: the lowest rank leaves first."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from policies.base import Block, EvictionPolicy, TierInfo

Entry = tuple[tuple[float, ...], int, Block]


class Ranked(EvictionPolicy):
    """A policy in one method, `rank(block) -> tuple`; blocks leave in ascending order, ties as they were ranked.

    A block is ranked when it is inserted, touched and released. `now` counts these calls and is new in each; `hits`
    holds the touches of every resident block since it was inserted (`Block.uses` is the tier's own figure: below HBM
    it counts loads only). So least recently used is `return (self.now,)`.

    Complexity: O(log n) amortised per call and per victim, with a heap in which superseded entries stay until they
    come up or outnumber the current ones. What a scan has offered is set aside and goes back at the next scan.
    """

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self.now = 0
        self.hits: dict[int, int] = {}
        self._heap: list[Entry] = []
        self._offered: list[Entry] = []
        self._current: dict[int, Entry] = {}

    @abstractmethod
    def rank(self, block: Block) -> tuple[float, ...]:
        """How much the block is worth keeping now; tuples of one length for all blocks, without NaN."""

    def ranked(self, block: Block) -> tuple[float, ...]:
        """The rank that a resident block was given last."""
        return self._current[block.key][0]

    def insert(self, block: Block) -> None:
        self.hits[block.key] = 0
        self._place(block)

    def touch(self, block: Block) -> None:
        self.hits[block.key] += 1
        self._place(block)

    def release(self, block: Block) -> None:
        self._place(block)

    def victims(self) -> Iterator[Block]:
        self._take_back()
        heap = self._heap
        while heap:
            entry = heappop(heap)
            if self._is_current(entry):
                self._offered.append(entry)
                yield entry[2]

    def remove(self, block: Block) -> None:
        del self._current[block.key]
        del self.hits[block.key]

    def _place(self, block: Block) -> None:
        self.now += 1
        entry = (self.rank(block), self.now, block)
        self._current[block.key] = entry
        heappush(self._heap, entry)
        if len(self._heap) + len(self._offered) > 2 * len(self._current) + 64:
            self._offered.clear()
            self._heap[:] = self._current.values()
            heapify(self._heap)

    def _take_back(self) -> None:
        for entry in self._offered:
            if self._is_current(entry):
                heappush(self._heap, entry)
        self._offered.clear()

    def _is_current(self, entry: Entry) -> bool:
        return self._current.get(entry[2].key) is entry
