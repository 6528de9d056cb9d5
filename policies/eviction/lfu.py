"""Least frequently used."""

from __future__ import annotations

from policies.base import Block
from policies.eviction.ranked import Ranked


class LFU(Ranked):
    """Evicts the block with the fewest hits since it became resident; among equals, the one used longest ago.

    A hit on a block of a prefix is a hit on every block before it, so parents never have fewer hits than their
    children, and among equals the child was released first. There is no ageing: blocks that were popular once stay
    (`gdsf` ages).

    Source: A. V. Aho, P. J. Denning, J. D. Ullman, "Principles of optimal page replacement", Journal of the ACM 18(1),
    1971: under independent references it is optimal to keep the pages with the highest probability of use (algorithm
    A0), which counting approximates.

    Complexity: O(log n) amortised per operation.
    """

    def rank(self, block: Block) -> tuple[float, ...]:
        return (self.hits[block.key], self.now)
