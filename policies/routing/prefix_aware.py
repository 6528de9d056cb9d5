"""Where a request costs least: prompt tokens left to compute against memory in use."""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import RequestView
from policies.options import number, seconds, switch
from policies.routing.base import ReplicaView, Router


class PrefixAware(Router):
    """The replica with the least of `prefill_weight` x prompt tokens to compute there + tokens active there.

    Prompt tokens to compute: those of the requests that have no token yet, and of this one what is not cached there, in
    its HBM or in a tier behind it. Of equals the first that comes next in turn.

    prefill_weight   what a prompt token to compute counts, in active tokens; 0 ignores the caches
    hbm_only         count what is cached in HBM alone
    stale            time between two reports of the replicas, of loads and of caches; 0: exact
    add_sent         with `stale`: what was sent there since the last report counts as waiting

    Source: the KV router of NVIDIA Dynamo (docs, Router: cost = overlap_score_weight x prefill blocks + decode blocks,
    least cost at temperature 0), which learns of caches by events and of load by its own bookkeeping; here both are
    exact, or `stale`.

    Complexity: O(replicas x blocks of the prompt).
    """

    def __init__(
        self, *, prefill_weight: float = 1.0, hbm_only: bool = False, stale: float | str = 0.0, add_sent: bool = True
    ) -> None:
        self._weight = number("prefill_weight", prefill_weight, 0)
        if not isinstance(hbm_only, bool):
            raise ValueError(f"hbm_only is {hbm_only!r}, expected true or false")
        self._level = 0 if hbm_only else None
        self.stale_s = seconds("stale", stale)
        self.adds_sent = switch("add_sent", add_sent)
        self._next = 0

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        count = len(replicas)

        def cost(i: int) -> tuple[float, int]:
            replica = replicas[i]
            cached = min(replica.cached_tokens(request.keys, self._level), request.input_tokens)
            prefill = replica.prompt_tokens + request.input_tokens - cached
            return self._weight * prefill + replica.active_tokens, (i - self._next) % count

        chosen = min(range(count), key=cost)
        self._next = (chosen + 1) % count
        return chosen
