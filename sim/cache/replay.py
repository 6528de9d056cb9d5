"""The general path: any eviction policy, one pass over the accesses for one capacity."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from hw_profiles.errors import InputError
from policies.base import Block, EvictionPolicy, TierInfo
from sim.cache.accesses import Accesses, Hits


def cache_info(capacity: int) -> TierInfo:
    """The tier that a policy is built for: `capacity` blocks of unit size."""
    return TierInfo("cache", capacity, 1)


class Replay:
    """Plays accesses to policies. The lists and the one Block per key are made once, for all policies and capacities.

    The rule, for every request in order of arrival:
    1. Its prompt is looked up whole, against what is resident before the request changes anything: the longest prefix
       of resident blocks is its hit, in tokens (a partial last block counts with its own).
    2. Then its blocks are used one by one, children before parents: a resident one is touched, a missing one is
       inserted, and if the cache is full the policy's first victim leaves just before. Every use ends at once
       (`release`), and nothing is pinned: the victim may be another block of the same request, one that was hit in
       step 1 included. So the sequence of block accesses does not depend on the policy, which is what makes
       `sim.cache.belady` a bound of block hits; and a prompt longer than the cache leaves its start there.

    Output tokens are not stored. Every block counts as one, also a partial one.
    """

    def __init__(self, accesses: Accesses) -> None:
        self._accesses = accesses
        self._keys: list[int] = accesses.keys.tolist()
        self._segments = accesses.segments()
        self._prefix = accesses.prefix_tokens()
        starts, tokens = accesses.starts.tolist(), accesses.tokens.tolist()
        blocks: list[Block | None] = [None] * accesses.distinct
        for key, start, count in zip(self._keys, starts, tokens, strict=True):
            if blocks[key] is None:
                blocks[key] = Block(key, start, count, 1, count)
        self._blocks = [block for block in blocks if block is not None]

    def hits(self, policy: EvictionPolicy, capacity: int) -> Hits:
        """Hits of a fresh `policy` with room for `capacity` blocks. Raises InputError when it breaks its contract."""
        with _no_cycle_search():
            return self._hits(policy, capacity)

    def _hits(self, policy: EvictionPolicy, capacity: int) -> Hits:
        keys, blocks, prefix = self._keys, self._blocks, self._prefix
        resident = bytearray(self._accesses.distinct)
        hit_tokens = hit_blocks = used = 0
        insert, touch, victims, remove = policy.insert, policy.touch, policy.victims, policy.remove
        cls = type(policy)
        miss = None if cls.miss is EvictionPolicy.miss else policy.miss
        release = None if cls.release is EvictionPolicy.release else policy.release
        for lo, hi in self._segments:
            first = hi
            while first > lo and resident[keys[first - 1]]:
                first -= 1
            if first < hi:
                hit_tokens += prefix[first]
            for key in keys[lo:hi]:
                block = blocks[key]
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
                            raise _broken(policy, victim)
                        remove(victim)
                        resident[victim.key] = 0
                    block.uses = 0
                    resident[key] = 1
                    insert(block)
                if release is not None:
                    release(block)
        return Hits(hit_tokens, hit_blocks)


@contextmanager
def _no_cycle_search() -> Iterator[None]:
    """Pause the search for cyclic garbage: a pass makes objects by the million, and next to none in cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _broken(policy: EvictionPolicy, victim: Block | None) -> InputError:
    what = "no block although the cache is full" if victim is None else f"{victim}, which is not resident"
    return InputError(f"eviction policy {type(policy).__name__} broke its contract: victims() offered {what}")
