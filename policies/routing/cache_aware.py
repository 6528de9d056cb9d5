"""The longest cached prefix, unless the load is out of balance."""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import RequestView
from policies.options import number, seconds, switch, whole
from policies.routing.base import ReplicaView, Router


class CacheAware(Router):
    """The replica with the most of the prompt cached; the least loaded if that is too little or loads differ too much.

    threshold       share of the prompt that must be cached for the caches to decide
    balance_abs     loads are out of balance when the most and the least loaded replicas differ by more requests than
                    this, and
    balance_rel     the most loaded has more than this many times the requests of the least loaded
    stale           time between two reports of the replicas, of loads and of caches; 0: exact
    add_sent        with `stale`: what was sent there since the last report counts as waiting

    Load: requests running and waiting; of equals, in turn.

    Source: the cache_aware policy of SGLang's router and of vLLM's router (thresholds 0.3, 64 and 1.5 there too). They
    remember which prompts they sent where, for ever or until a limit (`approximate_prefix`); here the caches are asked,
    or tell (`stale`). Where too little is cached they take the replica with the smallest record, here the least
    loaded.

    Complexity: O(replicas x blocks of the prompt).
    """

    def __init__(
        self,
        *,
        threshold: float = 0.3,
        balance_abs: int = 64,
        balance_rel: float = 1.5,
        stale: float | str = 0.0,
        add_sent: bool = True,
    ) -> None:
        self._threshold = number("threshold", threshold, 0, 1)
        self._abs = whole("balance_abs", balance_abs, 0, 2**31)
        self._rel = number("balance_rel", balance_rel, 1)
        self.stale_s = seconds("stale", stale)
        self.adds_sent = switch("add_sent", add_sent)
        self._next = 0

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        loads = [replica.running + replica.waiting for replica in replicas]
        most, least = max(loads), min(loads)
        shares = [0.0]
        balanced = most - least <= self._abs or most <= self._rel * least
        if balanced:
            shares = [replica.cached_tokens(request.keys) / request.input_tokens for replica in replicas]
        best = max(shares)
        if balanced and best > self._threshold:
            candidates = [i for i, share in enumerate(shares) if share == best]
        else:
            candidates = [i for i, load in enumerate(loads) if load == least]
        count = len(replicas)
        chosen = min(candidates, key=lambda i: (loads[i], (i - self._next) % count))
        self._next = (chosen + 1) % count
        return chosen
