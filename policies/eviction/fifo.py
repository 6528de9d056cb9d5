"""First in, first out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from policies.base import Block, EvictionPolicy, TierInfo


class FIFO(EvictionPolicy):
    """Evicts the block that became resident first, however often it has been used since.

    Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2),
    1966, which compares it with random and optimal replacement. A prefix is stored from its start, so its first block
    leaves first and the rest of it cannot be hit from then on.

    Complexity: O(1) per operation.
    """

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self._order: OrderedDict[int, Block] = OrderedDict()

    def insert(self, block: Block) -> None:
        self._order[block.key] = block

    def insert_all(self, blocks: Iterable[Block]) -> None:
        order = self._order
        for block in blocks:
            order[block.key] = block

    def touch(self, block: Block) -> None:
        """Uses change nothing."""

    def victims(self) -> Iterator[Block]:
        return iter(self._order.values())

    def remove(self, block: Block) -> None:
        del self._order[block.key]

    def remove_all(self, blocks: Iterable[Block]) -> None:
        order = self._order
        for block in blocks:
            del order[block.key]
