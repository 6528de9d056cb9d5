"""Copy a block once it has proved to be used again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.base import Block, Event, Move, OffloadPolicy, TierView
from policies.options import whole


class WriteThroughSelective(OffloadPolicy):
    """Copies a block to the tier below once requests have hit it `after` times; never one that nobody asked for again.

    after   hits in the tier above that earn a block its copy; in a tier behind HBM, loads from it

    Stores less than write-through, and no step waits for a copy as with write-back; the price is that a block that is
    evicted before its `after`-th hit is lost. Hits are counted while a block is resident: one that was evicted and
    computed again starts from zero. A block that gains tokens after its copy was made has them copied at its next hit.
    The copy starts when the request that hits is admitted; a hit on a block that the step still computes starts none.

    Source: `write_through_selective` of SGLang HiCache (docs/advanced_features/hicache_design.md, "Data Write-back";
    `_inc_hit_count` of its radix cache). HiCache counts the computation as the first hit and copies at the second,
    which is `after` = 1 here.

    Complexity: O(1) per block hit, no memory of its own.
    """

    listens = (Event.HIT,)

    def __init__(self, *, after: int = 1) -> None:
        self._after = whole("after", after, 1, 1_000_000)

    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        if tier.below is None:
            return ()
        below = tier.below
        return [Move(block, below) for block in blocks if block.uses >= self._after]
