"""For the requests at the head of the queue."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import STOP_RULES, CacheView, Fetch, PrefetchPolicy, RequestView, Trigger
from policies.options import choice, number, seconds
from policies.prefetch.into import level_of


class LookAhead(PrefetchPolicy):
    """Brings the blocks of waiting requests nearer, from the head of the queue on, up to `share` of a tier.

    Whenever a request comes to the queue or leaves it, the next ones move up, and those that now lie within the window
    have their blocks fetched, once each.

    into      tier to bring them into. None: the one behind HBM
    share     part of that tier that the prompts of the window may take, by their length
    stop      what the scheduler does with a request whose blocks are on their way when its turn comes: "join" (wait for
              them as for a load), or one of `on_arrival`'s rules, for what is fetched as it arrives
    timeout   for stop: timeout, as in `on_arrival`

    Source: scheduler-aware fetching of CachedAttention (B. Gao et al., USENIX ATC 2024, section 3.3.1): a look-ahead
    window over the job queue, as long as the host memory set aside for fetching has room for its conversations.

    Complexity: O(w) per event for the w requests in the window, and the length of each prompt once.
    """

    listens = (Trigger.ARRIVED, Trigger.ADMITTED)

    def __init__(
        self, *, into: str | None = None, share: float = 0.5, stop: str = "join", timeout: float | str = "1 s"
    ) -> None:
        self._into = into
        self._share = number("share", share, 0.0, 1.0, above=True)
        self.stop = choice("stop", stop, STOP_RULES)
        self.timeout_s = seconds("timeout", timeout, above=self.stop == "timeout")
        self._fetched: set[int] = set()

    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        if trigger is Trigger.ADMITTED:
            self._fetched.discard(request.index)
        level = level_of(self._into, cache)
        if level is None:
            return ()
        into = cache.tiers[level]
        room = self._share * cache.capacity(into) // cache.block_bytes
        planned: set[int] = set()
        fetches = []
        for waiting in cache.waiting:
            room -= len(waiting.keys)
            if room < 0:
                break
            if waiting.index not in self._fetched:
                self._fetched.add(waiting.index)
                keys = [key for key in waiting.keys if key not in planned]
                planned.update(keys)
                if keys:
                    fetches.append(Fetch(keys, into))
        return fetches
