"""No prefetching."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import CacheView, Fetch, PrefetchPolicy, RequestView, Trigger


class NoPrefetch(PrefetchPolicy):
    """Brings nothing toward the GPU ahead of time: blocks are loaded when their request is scheduled."""

    listens = ()

    def plan(self, trigger: Trigger, request: RequestView, cache: CacheView) -> Iterable[Fetch]:
        return ()
