"""The most popular prefixes, whenever there is room."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from policies.base import CacheView, Fetch, PrefetchPolicy, RequestView, Trigger
from policies.options import seconds, whole
from policies.prefetch.into import level_of
from policies.prefetch.ranking import Ranking

LOOK = 8
"""Popular blocks looked at for each one that may be fetched."""


class Popularity(PrefetchPolicy):
    """Keeps the blocks that most requests asked for lately in a near tier, as far as it has free memory.

    Each arrival counts once for every block of its prompt, and a count loses half its weight every `half_life`:

        count(t) = sum over arrivals a of 2^(-(t - a) / half_life)

    Whenever a request arrives or finishes, the most popular blocks that are missing from `into` and everything nearer,
    and whose prefix is there, are brought in. Nothing is evicted for them.

    into        tier to bring them into
    most        blocks brought in per event, at most
    half_life   text with a unit or a number of seconds
    remember    blocks whose counts are kept; the one asked for longest ago is forgotten first

    The 8 x `most` most popular blocks are looked at each time. A prefix is at least as popular as what follows it, so
    prefixes come first.

    Source: counts that are decayed forward, so that time does not change their order: G. Cormode et al., "Forward
    decay: a practical time decay model for streaming systems", ICDE 2009. The policy is our own.

    Complexity: O(log n) per block of an arriving prompt, O(most log most) per event with free memory.
    """

    def __init__(
        self,
        *,
        into: str = "hbm",
        most: int = 8,
        half_life: float | str = "10 min",
        remember: int = 100_000,
    ) -> None:
        self._into = into
        self._most = whole("most", most, 1, 10_000)
        self._half_life = seconds("half_life", half_life, above=True)
        self._ranking = Ranking(whole("remember", remember, 1, 100_000_000))
        self._parents: dict[int, int | None] = {}

    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        if trigger is Trigger.ARRIVED:
            self._count(request.keys, cache.now)
        level = level_of(self._into, cache)
        room = min(self._most, cache.free(self._into) // cache.block_bytes)
        return () if level is None or room <= 0 else self._chains(self._missing(cache, level, room))

    def _count(self, keys: Iterable[int], now: float) -> None:
        """One arrival. Scores are log2 of counts decayed to time 0: they keep their order as time goes on."""
        gain = now / self._half_life
        chain: list[tuple[int, int, int | None]] = []
        parent: int | None = None
        for depth, key in enumerate(keys):
            chain.append((key, depth, parent))
            parent = key
        for key, depth, parent in reversed(chain):  # so that a prefix is forgotten after what follows it
            score = self._ranking.score(key)
            if score is not None:
                gained = max(score, gain) + math.log2(1 + 2.0 ** -abs(score - gain))
            else:
                gained = gain
            self._parents[key] = parent
            forgotten = self._ranking.raise_to(key, gained, depth)
            if forgotten is not None:
                del self._parents[forgotten]

    def _missing(self, cache: CacheView, level: int, room: int) -> list[int]:
        """Up to `room` popular keys that only farther tiers have, and whose prefix is near or comes with them."""
        near, far = cache.tiers[: level + 1], cache.tiers[level + 1 :]
        coming: dict[int, None] = {}
        for key in islice(self._ranking.top(), LOOK * self._most):
            if any(cache.holds(key, tier) for tier in near) or not any(cache.holds(key, tier) for tier in far):
                continue
            parent = self._parents[key]
            if parent is None or parent in coming or any(cache.holds(parent, tier) for tier in near):
                coming[key] = None
                if len(coming) == room:
                    break
        return list(coming)

    def _chains(self, keys: Iterable[int]) -> list[Fetch]:
        """One fetch for each run of blocks that follow each other."""
        chains: dict[int, list[int]] = {}
        for key in keys:
            parent = self._parents[key]
            chain = chains.pop(parent, []) if parent is not None else []
            chain.append(key)
            chains[key] = chain
        return [Fetch(chain, self._into) for chain in chains.values()]
