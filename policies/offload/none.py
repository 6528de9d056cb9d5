"""No offload."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.base import Block, Event, Move, OffloadPolicy, TierView


class NoOffload(OffloadPolicy):
    """Never copies a block away: an evicted block is lost, and the tiers below stay empty."""

    listens = ()

    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        return ()
