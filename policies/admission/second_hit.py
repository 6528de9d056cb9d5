"""At the second attempt."""

from __future__ import annotations

from collections import OrderedDict

from policies.base import AdmissionPolicy, Block, TierInfo
from policies.options import number


class SecondHit(AdmissionPolicy):
    """Lets a block in that has been used again: it was hit where it comes from, or it was refused here not long ago.

    So a block that is computed once and never asked for again costs this tier neither bytes nor an eviction. A block
    that has left the tier starts anew. Which blocks knock a second time depends on the offload policy: `write_through`
    asks once per computation, so its second attempt follows an eviction from HBM and a recomputation; `write_back` asks
    when the block leaves, hit or not.

    ghost_ratio   refused keys that are remembered, as a multiple of the full blocks that fit the tier; the key refused
                  longest ago is forgotten first

    Source: the cache-on-second-hit rule of content delivery networks, B. M. Maggs, R. K. Sitaraman, "Algorithmic
    nuggets in content delivery", ACM SIGCOMM CCR 45(3), 2015, section 3, with a bounded list in place of their Bloom
    filters.

    Complexity: O(1) per attempt.
    """

    def __init__(self, tier: TierInfo, *, ghost_ratio: float = 1.0) -> None:
        super().__init__(tier)
        self._remembered = int(number("ghost_ratio", ghost_ratio, 0, 100) * tier.capacity_blocks)
        self._refused: OrderedDict[int, None] = OrderedDict()

    def admit(self, block: Block) -> bool:
        known = block.key in self._refused
        if known or block.uses:
            self._refused.pop(block.key, None)
            return True
        if self._remembered:
            self._refused[block.key] = None
            if len(self._refused) > self._remembered:
                self._refused.popitem(last=False)
        return False
