"""The general path: any eviction policy, one pass over the accesses for one capacity."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy, TierInfo
from sim.cache.accesses import Accesses, Hits, engine_tokens
from sim.cache.passes.facts import Facts


class Replay:
    """Plays accesses to policies. The lists and the one Block per key are made once, for all policies and capacities.

    The rule, for every request in order of arrival:
    1. The clock of the policy (`TierInfo.now`) is set to the arrival time of the request in the trace, and what the
       policy says has expired (`expired`) leaves. In a closed-loop trace that is the earliest time possible.
    2. Its prompt is looked up whole, against what is resident before the request changes anything: the longest prefix
       of resident blocks is its hit, in tokens (a partial last block counts with its own).
    3. Then its blocks are used one by one, children before parents: a resident one is touched, a missing one is
       inserted, and if the cache is full the policy's first victim leaves just before. Every use ends at once
       (`release`), and nothing is pinned: the victim may be another block of the same request, one that was hit in
       step 2 included. So the sequence of block accesses does not depend on the policy, which is what makes
       `sim.cache.belady` a bound of block hits; and a prompt longer than the cache leaves its start there.

    Output tokens are not stored. Every block counts as one, also a partial one.
    """

    def __init__(self, accesses: Accesses) -> None:
        self.facts = Facts.of(accesses)
        self._now = 0.0

    @cached_property
    def _blocks(self) -> list[Block]:
        """By key; not made for policies that have passes of their own (`sim.cache.passes`)."""
        facts = self.facts
        parents: list[int | None] = [None] * facts.distinct
        for keys in reversed(facts.requests):  # backwards, so that the first use of a block is what remains
            for key, parent in zip(keys, (*keys[1:], None), strict=True):
                parents[key] = parent
        return [
            Block(key, start, count, 1, count, parent)
            for key, (start, count, parent) in enumerate(zip(facts.starts, facts.tokens, parents, strict=True))
        ]

    def now(self) -> float:
        """Arrival time of the request in progress, s."""
        return self._now

    def info(self, capacity: int) -> TierInfo:
        """The tier that a policy is built for: `capacity` blocks of unit size, with the clock of this replay."""
        return cache_info(capacity, self.now)

    def hits(self, policy: EvictionPolicy, capacity: int) -> Hits:
        """Hits of a fresh `policy` with room for `capacity` blocks. Raises InputError when it breaks its contract."""
        with no_cycle_search():
            return self._hits(policy, capacity)

    def _hits(self, policy: EvictionPolicy, capacity: int) -> Hits:
        facts, blocks = self.facts, self._blocks
        size = facts.block_tokens
        resident = bytearray(facts.distinct)
        hit_tokens = hit_blocks = engine = used = 0
        insert, touch, victims, remove = policy.insert, policy.touch, policy.victims, policy.remove
        cls = type(policy)
        miss = None if cls.miss is EvictionPolicy.miss else policy.miss
        release = None if cls.release is EvictionPolicy.release else policy.release
        expires = cls.expired is not EvictionPolicy.expired
        turns = facts.turns
        for index, (keys, length) in enumerate(zip(facts.requests, facts.lengths, strict=True)):
            self._now = facts.arrivals[index]
            if expires:
                for block in list(policy.expired()):
                    if not resident[block.key]:
                        raise _broken(policy, "expired", block)
                    remove(block)
                    resident[block.key] = 0
                    used -= 1
            found = 0
            for key in reversed(keys):
                if not resident[key]:
                    break
                found += 1
            if found:
                tokens = min(found * size, length)
                hit_tokens += tokens
                engine += engine_tokens(tokens, length)
            for key in keys:
                block = blocks[key]
                if turns is not None:
                    block.turn = turns[index]
                if resident[key]:
                    hit_blocks += 1
                    block.uses += 1
                    touch(block)
                else:
                    if miss is not None:
                        miss(key)
                    if used < capacity:
                        used += 1
                    else:
                        victim = next(iter(victims()), None)
                        if victim is None or not resident[victim.key]:
                            raise _broken(policy, "victims", victim)
                        remove(victim)
                        resident[victim.key] = 0
                    block.uses = 0
                    resident[key] = 1
                    insert(block)
                if release is not None:
                    release(block)
        return Hits(hit_tokens, hit_blocks, engine)


def cache_info(capacity: int, now: Callable[[], float] = lambda: 0.0) -> TierInfo:
    """The tier that a policy is built for: `capacity` blocks of unit size."""
    return TierInfo("cache", capacity, 1, now)


@contextmanager
def no_cycle_search() -> Iterator[None]:
    """Pause the search for cyclic garbage: a pass makes objects by the million, and next to none in cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _broken(policy: EvictionPolicy, hook: str, block: Block | None) -> InputError:
    what = "no block although the cache is full" if block is None else f"{block}, which is not resident"
    return InputError(f"eviction policy {type(policy).__name__} broke its contract: {hook}() offered {what}")
