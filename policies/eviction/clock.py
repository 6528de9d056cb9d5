"""CLOCK: FIFO with a second chance."""

from __future__ import annotations

from collections.abc import Iterator

from policies.base import Block, EvictionPolicy, TierInfo
from policies.eviction.chain import Chain, Node
from policies.options import whole


class Clock(EvictionPolicy):
    """A hand goes round the blocks in the order of their arrival; those used since its last visit are passed over.

    max_hits   rounds that a block can survive without being used again. 1 is the classic bit; more is the generalised
               CLOCK, where a counter goes up with every hit and down with every visit

    Kept as a queue: the block under the hand is the oldest, and passing it over moves it to the back.

    Source: F. J. Corbató, "A paging experiment with the Multics system", MIT Project MAC report MAC-M-384, 1968. With
    counters: A. J. Smith, "Sequentiality and prefetching in database systems", ACM TODS 3(3), 1978.

    Complexity: O(1) amortised per operation (every pass over a block was paid for by a hit).
    """

    def __init__(self, tier: TierInfo, *, max_hits: int = 1) -> None:
        super().__init__(tier)
        self.max_hits = whole("max_hits", max_hits, 1, 255)
        self._nodes: dict[int, Node] = {}
        self._ring = Chain()

    def insert(self, block: Block) -> None:
        node = self._nodes[block.key] = Node(block)
        self._ring.push(node)

    def touch(self, block: Block) -> None:
        node = self._nodes[block.key]
        node.hits = min(node.hits + 1, self.max_hits)

    def victims(self) -> Iterator[Block]:
        ring = self._ring
        passed = ring.end
        while (node := ring.after(passed)) is not None:
            if node.hits:
                node.hits -= 1
                ring.to_back(node)
            else:
                passed = node
                yield node.block

    def remove(self, block: Block) -> None:
        self._ring.unlink(self._nodes.pop(block.key))
