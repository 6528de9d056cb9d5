"""While a request waits in the queue."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import STOP_RULES, CacheView, Fetch, PrefetchPolicy, RequestView, Trigger
from policies.options import choice, seconds, switch, whole
from policies.prefetch.into import level_of


class OnArrival(PrefetchPolicy):
    """Brings the blocks of a request's prompt nearer as soon as it arrives, while it waits for its turn.

    into      tier to bring them into. None: the one behind HBM, from where the load before the prefill is short; with
              HBM and one tier behind it that leaves nothing to do, and `hbm` is the choice
    stop      what the scheduler does with a request whose blocks are still on their way when its turn comes:
              "best_effort" (go on with what is there, and fetch no more), "wait_complete", "timeout" (wait so long,
              then go on), or "join" (load it, and wait for what is on its way)
    timeout   for stop: timeout, how long after the fetch began: text with a unit or a number of seconds
    timeout_per_ki_token   and so much longer for every 1,024 tokens that are to be fetched
    threshold   fewer tokens than that are not fetched
    only      true: what lies behind `into` when a request's turn comes is computed, since fetches are the only way from
              there; false: what no fetch was begun for, or what found no room in `into`, is loaded from where it is

    Source: SGLang HiCache, which brings pages from the third tier into the second while a request is queued, with these
    three rules (docs/advanced_features/hicache_design.md, "Prefetch from L3": `prefetch_timeout_base +
    prefetch_timeout_per_ki_token * tokens / 1024`, and the threshold of 256 tokens; the defaults of its cache
    controller are 1 s and 0.25 s). There a request uses what L1 and L2 have and what its fetch
    brought, so `only` is true: what is below the threshold, or found no room in L2, is computed. A threshold of 0, one
    figure for the time-out and `only: false` are the defaults here.

    Complexity: O(1) per request and the length of its prompt.
    """

    listens = (Trigger.ARRIVED,)

    def __init__(
        self,
        *,
        into: str | None = None,
        stop: str = "best_effort",
        timeout: float | str = "1 s",
        timeout_per_ki_token: float | str = 0.0,
        threshold: int = 0,
        only: bool = False,
    ) -> None:
        self._into = into
        self.stop = choice("stop", stop, STOP_RULES)
        self._per_token_s = seconds("timeout_per_ki_token", timeout_per_ki_token) / 1024
        self.timeout_s = seconds("timeout", timeout, above=self.stop == "timeout" and not self._per_token_s)
        self._threshold = whole("threshold", threshold, 0, 1_000_000_000)
        self._only = switch("only", only)

    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        level = level_of(self._into, cache)
        if level is None or not request.keys:
            return ()
        into = cache.tiers[level]
        if not (self._threshold or self._per_token_s):
            return (Fetch(request.keys, into),)
        tokens = _behind(request, level, cache)
        if tokens < self._threshold:
            return ()
        return (Fetch(request.keys, into, patience_s=self.timeout_s + self._per_token_s * tokens),)

    def reach(self, cache: CacheView) -> str | None:
        level = level_of(self._into, cache) if self._only else None
        return None if level is None else cache.tiers[level]


def _behind(request: RequestView, level: int, cache: CacheView) -> int:
    """Tokens of the prompt's prefix that lie behind the tier of a level, and in none before it."""
    nearer, further = cache.tiers[: level + 1], cache.tiers[level + 1 :]
    tokens = 0
    for place, key in enumerate(request.keys):
        if any(cache.holds(key, tier) for tier in nearer):
            continue
        if not any(cache.holds(key, tier) for tier in further):
            break
        tokens += min(cache.block_tokens, request.input_tokens - place * cache.block_tokens)
    return tokens
