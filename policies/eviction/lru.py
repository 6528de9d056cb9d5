"""Least recently used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from policies.base import Block, EvictionPolicy, TierInfo


class LRU(EvictionPolicy):
    """Evicts the block whose last use ended longest ago.

    A use ends when the request that pinned the block finishes, children before parents, so of one prefix the deepest
    block goes first. This is the order of vLLM's free-block queue (vllm/v1/core/block_pool.py: `free_blocks` appends
    a request's blocks in reverse).
    """

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self._order: OrderedDict[int, Block] = OrderedDict()

    def insert(self, block: Block) -> None:
        self._order[block.key] = block

    def touch(self, block: Block) -> None:
        self._order.move_to_end(block.key)

    release = touch

    def victims(self) -> Iterator[Block]:
        return iter(self._order.values())

    def remove(self, block: Block) -> None:
        del self._order[block.key]
