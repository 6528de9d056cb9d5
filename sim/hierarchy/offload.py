"""An offload policy at work: what it may see, which events it hears, and whether its plans keep the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hw_profiles.errors import InputError
from policies.base import Block, Event, Moves, OffloadPolicy
from sim.hierarchy.tier import Tier


class Costs(Protocol):
    """Prices of a block in seconds, for policies that weigh them; `size` in bytes."""

    def recompute_s(self, start: int, tokens: int) -> float:
        """To compute `tokens` tokens after a prefix of `start`."""

    def load_s(self, tier: str, size: int) -> float:
        """To load from the tier named `tier` to the GPU, no link busy."""

    def store_s(self, source: str, target: str, size: int) -> float:
        """To copy from one tier to another one behind it, no link busy."""


class View:
    """What an offload policy may see of its tier (policies.base.TierView)."""

    def __init__(self, tier: Tier, below: Tier | None, costs: Costs, now: Callable[[], float]) -> None:
        self._tier = tier
        self._below = below
        self._costs = costs
        self._now = now

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

    @property
    def now(self) -> float:
        return self._now()

    def holds_below(self, block: Block) -> bool:
        if self._below is None or self._below.span > self._tier.span:
            return self._below is not None and self._below.holds(block.key)
        copy = self._below.blocks.get(block.key)
        return copy is not None and copy.tokens >= block.tokens - block.tokens % self._below.block_tokens

    def recompute_s(self, block: Block) -> float:
        return self._costs.recompute_s(block.start, block.tokens)

    def load_s(self, block: Block, tier: str) -> float:
        return self._costs.load_s(tier, block.size)

    def store_s(self, block: Block, tier: str) -> float:
        return self._costs.store_s(self._tier.name, tier, block.size)


class Offload:
    """The policy of one tier over the tiers behind it; hears nothing when there are none."""

    def __init__(
        self, policy: OffloadPolicy, tier: Tier, behind: Sequence[Tier], costs: Costs, now: Callable[[], float]
    ) -> None:
        listens = policy.listens if behind else ()
        self.hears_filled = Event.FILLED in listens
        self.hears_hit = Event.HIT in listens
        self.hears_evicted = Event.EVICTED in listens
        self._policy = policy
        self._view = View(tier, behind[0] if behind else None, costs, now)
        self._targets = tuple(other.name for other in behind)
        self._label = tier.label

    def plan(self, event: Event, blocks: list[Block]) -> dict[str, list[Block]]:
        """The blocks that the policy copies, by the tier that they go to.

        Raises InputError for a plan that breaks the contract.
        """
        moves = self._policy.plan(event, blocks, self._view)
        if type(moves) is Moves and moves.blocks is blocks and moves.to in self._targets:
            return {moves.to: blocks}  # what it was given, once
        try:
            plan: dict[str, list[Block]] = {}
            for block, to in moves:
                try:
                    plan[to].append(block)
                except KeyError:
                    plan[to] = [block]
            for to, chosen in plan.items():
                self._check(to, chosen)
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise self._broken(f"plan() must return moves: {error}") from None
        return plan

    def _check(self, to: str, chosen: list[Block]) -> None:
        """Raises InputError for a tier that is not behind this one, and for what is no block that may go there once."""
        if to not in self._targets:
            raise self._broken(f"a move to {to!r}, expected one of {', '.join(self._targets)}")
        for block in chosen:
            if not isinstance(block, Block) or block.key < 0:
                raise self._broken(f"a move of {block!r}, which is not one of the blocks that it was given")
        if len({block.key for block in chosen}) < len(chosen):
            raise self._broken("the same move twice")

    def _broken(self, what: str) -> InputError:
        return InputError(f"offload policy {type(self._policy).__name__} broke its contract in {self._label}: {what}")
