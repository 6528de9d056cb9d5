"""Copy a block only when it is evicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.base import Block, Event, Move, OffloadPolicy, TierView


class WriteBack(OffloadPolicy):
    """Copies a block to the tier below when it is evicted, unless it is already there.

    Stores less than write-through, but the step that needs the memory waits for the copy, as SGLang HiCache's
    `write_back` does. In a tier behind HBM what waits is the copy that needs the memory.
    """

    listens = (Event.EVICTED,)

    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        if tier.below is None:
            return ()
        below = tier.below
        return [Move(block, below) for block in blocks if not tier.holds_below(block)]
