"""Read-only views that policies get."""

from __future__ import annotations

from policies.base import Block
from sim.hierarchy.tier import Tier


class HBMView:
    """What an offload policy may see of the HBM tier (policies.base.TierView)."""

    def __init__(self, tier: Tier, below: Tier | None) -> None:
        self._tier = tier
        self._below = below

    @property
    def name(self) -> str:
        return self._tier.name

    @property
    def below(self) -> str | None:
        return None if self._below is None else self._below.name

    @property
    def capacity(self) -> int:
        return self._tier.capacity

    @property
    def used(self) -> int:
        return self._tier.used + self._tier.reserved

    def holds_below(self, block: Block) -> bool:
        copy = None if self._below is None else self._below.blocks.get(block.key)
        return copy is not None and copy.tokens >= block.tokens
