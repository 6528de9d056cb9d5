"""Least recently used."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import Block
from policies.eviction.fifo import FIFO


class LRU(FIFO):
    """Evicts the block whose last use ended longest ago.

    A use ends when the request that pinned the block finishes, children before parents, so of one prefix the deepest
    block goes first. This is the order of vLLM's free-block queue (vllm/v1/core/block_pool.py: `free_blocks` appends
    a request's blocks in reverse).

    Complexity: O(1) per operation.
    """

    def touch(self, block: Block) -> None:
        self._order.move_to_end(block.key)

    def touch_all(self, blocks: Iterable[Block]) -> None:
        to_end = self._order.move_to_end
        for block in blocks:
            to_end(block.key)

    release, release_all = touch, touch_all
