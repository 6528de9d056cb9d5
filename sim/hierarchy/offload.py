"""An offload policy at work: what it may see, which events it hears, and whether its plans keep the contract."""

from __future__ import annotations

from hw_profiles.errors import InputError
from policies.base import Block, Event, Move, OffloadPolicy
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


class Offload:
    """The policy of a replica's HBM over the tiers behind it; hears nothing when there are none."""

    def __init__(self, policy: OffloadPolicy, hbm: Tier, lower: list[Tier]) -> None:
        listens = policy.listens if lower else ()
        self.hears_filled = Event.FILLED in listens
        self.hears_hit = Event.HIT in listens
        self.hears_evicted = Event.EVICTED in listens
        self._policy = policy
        self._view = HBMView(hbm, lower[0] if lower else None)
        self._targets = tuple(tier.name for tier in lower)

    def plan(self, event: Event, blocks: list[Block]) -> list[Move]:
        """The policy's copies; raises InputError for a plan that breaks the contract."""
        moves = self._policy.plan(event, blocks, self._view)
        try:
            plan = list(moves)
            for block, to in plan:
                if to not in self._targets:
                    raise self._broken(f"a move to {to!r}, expected one of {', '.join(self._targets)}")
                if not isinstance(block, Block) or block.private:
                    raise self._broken(f"a move of {block!r}, which is not one of the blocks that it was given")
            if len({(block.key, to) for block, to in plan}) < len(plan):
                raise self._broken("the same move twice")
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise self._broken(f"plan() must return moves: {error}") from None
        return plan

    def _broken(self, what: str) -> InputError:
        return InputError(f"offload policy {type(self._policy).__name__} broke its contract: {what}")
