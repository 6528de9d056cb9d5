"""While a request waits in the queue."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import STOP_RULES, CacheView, Fetch, PrefetchPolicy, RequestView, Trigger
from policies.options import choice, seconds
from policies.prefetch.into import level_of


class OnArrival(PrefetchPolicy):
    """Brings the blocks of a request's prompt nearer as soon as it arrives, while it waits for its turn.

    into      tier to bring them into. None: the one behind HBM, from where the load before the prefill is short; with
              HBM and one tier behind it that leaves nothing to do, and `hbm` is the choice
    stop      what the scheduler does with a request whose blocks are still on their way when its turn comes:
              "best_effort" (go on with what is there), "wait_complete", "timeout" (wait so long, then go on), or
              "join" (load it, and wait for what is on its way)
    timeout   for stop: timeout, how long after the fetch began: text with a unit or a number of seconds

    Source: SGLang HiCache (docs/advanced_features/hicache_design.md, "Prefetch from L3"), which brings blocks from the
    third tier into the second while a request is queued, with these three rules. What differs: HiCache fetches only if
    at least 256 tokens are to be had, and its time-out is 1 s and 0.25 s for every 1,024 tokens (its controller's
    defaults); here it is one figure, by default its first.

    Complexity: O(1) per request and the length of its prompt.
    """

    listens = (Trigger.ARRIVED,)

    def __init__(self, *, into: str | None = None, stop: str = "best_effort", timeout: float | str = "1 s") -> None:
        self._into = into
        self.stop = choice("stop", stop, STOP_RULES)
        self.timeout_s = seconds("timeout", timeout, above=self.stop == "timeout")

    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        level = level_of(self._into, cache)
        return () if level is None or not request.keys else (Fetch(request.keys, cache.tiers[level]),)
