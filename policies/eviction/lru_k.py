"""LRU-K: recency of the K-th last use."""

from __future__ import annotations

from collections import OrderedDict, deque

from policies.base import Block, TierInfo
from policies.eviction.ranked import Ranked
from policies.options import number, whole


class LRUK(Ranked):
    """Evicts the block whose K-th most recent use lies furthest back; blocks used fewer than K times go before all.

    k               uses looked back over; 1 is plain LRU
    history_ratio   evicted blocks whose last uses are remembered, as a multiple of the full blocks that fit the tier;
                    0 forgets a block's past when it leaves

    Becoming resident and every hit are uses. The time of a use is when it ended, counted in calls instead of seconds.
    Among blocks with fewer than K uses, the one used longest ago leaves first. The paper's correlated reference period
    is not modelled, since the hits of one request on a block already arrive as one.

    Source: E. J. O'Neil, P. E. O'Neil, G. Weikum, "The LRU-K page replacement algorithm for database disk buffering",
    SIGMOD 1993, section 2 (backward K-distance; retained information).

    Complexity: O(log n) amortised per operation, O(K) memory per block, resident or remembered.
    """

    def __init__(self, tier: TierInfo, *, k: int = 2, history_ratio: float = 1.0) -> None:
        super().__init__(tier)
        self.k = whole("k", k, 1, 16)
        self.remembered = int(number("history_ratio", history_ratio, 0, 100) * tier.capacity_blocks)
        self._uses: dict[int, deque[int]] = {}
        self._past: OrderedDict[int, deque[int]] = OrderedDict()

    def insert(self, block: Block) -> None:
        uses = self._past.pop(block.key, None)
        self._uses[block.key] = deque(maxlen=self.k) if uses is None else uses
        self._uses[block.key].append(self.now)
        super().insert(block)

    def touch(self, block: Block) -> None:
        self._uses[block.key].append(self.now)
        super().touch(block)

    def release(self, block: Block) -> None:
        self._uses[block.key][-1] = self.now
        super().release(block)

    def remove(self, block: Block) -> None:
        super().remove(block)
        uses = self._uses.pop(block.key)
        if self.remembered and not block.private:
            self._past[block.key] = uses
            if len(self._past) > self.remembered:
                self._past.popitem(last=False)

    def rank(self, block: Block) -> tuple[float, ...]:
        uses = self._uses[block.key]
        return (uses[0] if len(uses) == self.k else -1, self.now)
