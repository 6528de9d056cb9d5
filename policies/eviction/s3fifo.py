"""S3-FIFO: a small FIFO in front of a main one, and a ghost of what the small one dropped."""

from __future__ import annotations

from collections.abc import Iterator

from policies.base import Block, EvictionPolicy, TierInfo
from policies.eviction.chain import Chain, Node
from policies.eviction.ghost import Ghost
from policies.options import number, whole

MAX_HITS = 3
"""A hit counter has two bits (section 4.1)."""


class S3FIFO(EvictionPolicy):
    """New blocks pass through a small queue; only those used there, or missed soon after it, reach the main queue.

    The oldest block of the small queue moves to the main one if it has been used `threshold` times, else it leaves and
    its key is remembered in a ghost queue. A block whose key is remembered there goes straight to the main queue. The
    main queue is a CLOCK with counters up to 3. It gives up a block when it holds more than its share or the small
    queue is empty, else the small queue does.

    small_ratio   share of the tier for the small queue
    ghost_ratio   bytes of the blocks whose keys are remembered, as a share of the tier
    threshold     uses in the small queue that earn a place in the main one

    Source: J. Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, section 4.1, algorithm 1. As
    in the authors' libCacheSim, blocks go to the main queue while the small one is full and nothing has been evicted
    yet, so that both have their share when the tier fills up.

    Complexity: O(1) amortised per operation.
    """

    def __init__(
        self, tier: TierInfo, *, small_ratio: float = 0.1, ghost_ratio: float = 0.9, threshold: int = 2
    ) -> None:
        super().__init__(tier)
        capacity = tier.capacity_bytes
        self.small_share = int(capacity * number("small_ratio", small_ratio, 0, 1))
        self.main_share = capacity - self.small_share
        self.threshold = whole("threshold", threshold, 1, MAX_HITS)
        self._small = Chain()
        self._main = Chain()
        self.ghost_capacity = int(capacity * number("ghost_ratio", ghost_ratio, 0, 100))
        self._ghost = Ghost(self.ghost_capacity, capacity)
        self._nodes: dict[int, Node] = {}
        self._filling = True

    def miss(self, key: int) -> None:
        self._ghost.recall(key)

    def insert(self, block: Block) -> None:
        self._ghost.recall(block.key)  # no miss was seen if the block comes from another tier
        returns = self._ghost.claim(block.key)
        main = returns or (self._filling and self._small.bytes >= self.small_share)
        node = self._nodes[block.key] = Node(block)
        (self._main if main else self._small).push(node)

    def touch(self, block: Block) -> None:
        node = self._nodes[block.key]
        node.hits = min(node.hits + 1, MAX_HITS)

    def victims(self) -> Iterator[Block]:
        self._filling = False
        small, main = self._small, self._main
        passed_small, passed_main = small.end, main.end
        offered_main = 0
        while True:
            # The queues as they would be without the blocks offered so far, which the tier removes after the scan.
            over = main.bytes - offered_main > self.main_share
            node = None if over else self._first_unused(passed_small)
            if node is not None:
                passed_small = node
                yield node.block
                continue
            node = main.after(passed_main)
            while node is not None and node.hits:
                node.hits -= 1
                main.to_back(node)
                node = main.after(passed_main)
            if node is not None:
                passed_main = node
                offered_main += node.size
                yield node.block
            else:
                return

    def _first_unused(self, passed: Node) -> Node | None:
        """The oldest block of the small queue after `passed` that has not earned more; those before it move to main."""
        while (node := self._small.after(passed)) is not None and node.hits >= self.threshold:
            self._small.unlink(node)
            node.hits = 0
            self._main.push(node)
        return node

    def remove(self, block: Block) -> None:
        node = self._nodes.pop(block.key)
        if node.chain is self._small:
            self._small.unlink(node)
            self._ghost.add(block, node.size)
        else:
            self._main.unlink(node)
