"""Frequency first, then the position in the prompt."""

from __future__ import annotations

from policies.base import Block, TierInfo
from policies.eviction.ranked import Ranked
from policies.options import choice


class LengthAware(Ranked):
    """Least frequently used, and among blocks with equally many hits the deepest in its prompt leaves first.

    keep   "head": of equals, keep the blocks near the start of prompts, which more requests can share and without
           which the later ones cannot be hit. "tail": keep those far from it, whose attention costs most to recompute

    Remaining ties go to the block used longest ago.

    Source: R. Qin et al., "Mooncake: a KVCache-centric disaggregated architecture for LLM serving", arXiv 2407.00079,
    section 4.2, table 1 (LengthAwareCache), where it is described in half a sentence as close to LFU, "prioritizing"
    the blocks that occur later in requests. That does not say whether they are first to stay or first to leave; the
    default here is the reading that suits prefixes, and `keep` gives the other.

    Complexity: O(log n) amortised per operation.
    """

    def __init__(self, tier: TierInfo, *, keep: str = "head") -> None:
        super().__init__(tier)
        self.sign = -1 if choice("keep", keep, ("head", "tail")) == "head" else 1

    def rank(self, block: Block) -> tuple[float, ...]:
        return (self.hits[block.key], self.sign * block.start, self.now)
