"""Belady's MIN with bypass: the most block hits that any cache could have had on one fixed access sequence."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappush, heapreplace

from sim.cache.accesses import Accesses, Hits, engine_tokens, next_use


def belady_hits(accesses: Accesses, capacities: Sequence[int]) -> list[Hits]:
    """Hits of the clairvoyant cache for each capacity (blocks).

    What it bounds: `Hits.blocks`, for every policy that sees the same accesses one by one and holds no more blocks
    (`sim.cache.replay` is such). What it does not bound: `Hits.tokens`, which count a block only when every block
    before it in the prompt is resident as well, and all at once when the request arrives. A policy that keeps whole
    prefixes can have more of those.

    The block whose next use is farthest leaves, or is not taken in when it is the missing block itself (bypass).
    SOURCE: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2),
    1966; that farthest-next-use is optimal: R. L. Mattson et al., "Evaluation techniques for storage hierarchies",
    IBM Systems Journal 9(2), 1970. O(n log n) per capacity, and only blocks with a next use cost anything.
    """
    keys: list[int] = accesses.keys.tolist()
    following: list[int] = next_use(accesses.keys).tolist()
    prefix, segments = accesses.prefix_tokens(), accesses.segments()
    return [_one(keys, following, prefix, segments, accesses.distinct, capacity) for capacity in capacities]


def _one(
    keys: Sequence[int],
    following: Sequence[int],
    prefix: Sequence[int],
    segments: Sequence[tuple[int, int]],
    distinct: int,
    capacity: int,
) -> Hits:
    never = len(keys)
    resident = bytearray(distinct)
    # Next uses of resident blocks, farthest first (negated). One that has come is past every other entry and never
    # surfaces again; so the top, if the cache is full, is always the next use of a resident block.
    farthest: list[int] = []
    hit_tokens = hit_blocks = engine = used = 0
    for lo, hi in segments:
        first = hi
        while first > lo and resident[keys[first - 1]]:
            first -= 1
        if first < hi:
            hit_tokens += prefix[first]
            engine += engine_tokens(prefix[first], prefix[lo])
        for place in range(lo, hi):
            key, again = keys[place], following[place]
            if resident[key]:
                hit_blocks += 1
                if again == never:
                    resident[key] = 0
                    used -= 1
                else:
                    heappush(farthest, -again)
            elif again == never:
                continue
            elif used < capacity:
                used += 1
                resident[key] = 1
                heappush(farthest, -again)
            elif capacity and -again > farthest[0]:
                victim = -heapreplace(farthest, -again)
                resident[keys[victim]] = 0
                resident[key] = 1
    return Hits(hit_tokens, hit_blocks, engine)
