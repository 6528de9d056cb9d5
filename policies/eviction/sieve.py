"""SIEVE: a hand that moves over a FIFO whose blocks keep their places."""

from __future__ import annotations

from collections.abc import Iterator

from policies.base import Block, EvictionPolicy, TierInfo
from policies.eviction.chain import Chain, Node


class Sieve(EvictionPolicy):
    """A hand moves from the oldest block to the newest, spares those that were used since and evicts the others.

    A block that the hand spares loses its mark but not its place (CLOCK would move it behind all newer ones), and the
    next search goes on where the last one stopped. So new blocks behind the hand are judged soon after they arrive,
    while old ones that have been spared are left alone until the hand has come round: quick demotion of blocks that
    are used once.

    Source: Y. Zhang et al., "SIEVE is simpler than LRU: an efficient turn-key eviction algorithm for web caches",
    NSDI 2024, section 3, algorithm 1.

    Complexity: O(1) amortised per operation (every sparing was paid for by a hit).
    """

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self._nodes: dict[int, Node] = {}
        self._queue = Chain()
        self._hand = self._queue.end

    def insert(self, block: Block) -> None:
        node = self._nodes[block.key] = Node(block)
        self._queue.push(node)

    def touch(self, block: Block) -> None:
        self._nodes[block.key].hits = 1

    def victims(self) -> Iterator[Block]:
        end = self._queue.end
        offered: set[int] = set()
        while len(offered) < len(self._nodes):
            node = end.next if self._hand is end else self._hand
            self._hand = node.next
            if node.hits:
                node.hits = 0
            elif node.block.key not in offered:
                offered.add(node.block.key)
                yield node.block

    def remove(self, block: Block) -> None:
        node = self._nodes.pop(block.key)
        if self._hand is node:
            self._hand = node.next
        self._queue.unlink(node)
