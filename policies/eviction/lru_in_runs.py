"""`lru` as the tiers of an engine keep it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policies.base import Block, EvictionPolicy
from policies.eviction.lru import LRU
from policies.eviction.runs import RunOrder


class LRUInRuns(EvictionPolicy):
    """`policies.eviction.lru.LRU`, the same order to the block, at a fraction of its cost for blocks of prompts.

    Complexity: O(1) for each run of blocks, and for each block that comes or joins others.
    """

    def __init__(self, policy: LRU) -> None:
        super().__init__(policy.tier)
        self._order = RunOrder()
        self._order.add(list(policy.victims()))

    def insert(self, block: Block) -> None:
        self._order.add([block])

    def insert_all(self, blocks: Iterable[Block]) -> None:
        self._order.add(list(blocks))

    def touch(self, block: Block) -> None:
        self._order.to_end([block])

    def touch_all(self, blocks: Iterable[Block]) -> None:
        self._order.to_end(blocks if isinstance(blocks, list) else list(blocks))

    release, release_all = touch, touch_all

    def victims(self) -> Iterator[Block]:
        return self._order.coldest()

    def remove(self, block: Block) -> None:
        self._order.remove([block])

    def remove_all(self, blocks: Iterable[Block]) -> None:
        self._order.remove(blocks if isinstance(blocks, list) else list(blocks))


def in_runs(policy: EvictionPolicy) -> EvictionPolicy:
    """The policy as an engine's tier keeps it: in runs if it is exactly `lru`."""
    return LRUInRuns(policy) if type(policy) is LRU else policy
