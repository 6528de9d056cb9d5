"""Where the fewest requests are."""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import RequestView
from policies.options import number, seconds, switch
from policies.routing.base import ReplicaView, Router


class LeastLoaded(Router):
    """The replica with the least of `waiting_weight` x requests waiting + requests running; of equals, in turn.

    waiting_weight   what a waiting request counts, in running ones
    stale            time between two reports of the replicas, which is how old what it knows may be; 0: exact
    add_sent         with `stale`: what was sent there since the last report counts as waiting

    Source: vLLM's data-parallel load balancer (vllm/v1/engine/core_client.py, DPLBAsyncMPClient: 4 x waiting +
    running). Its counts are up to 100 ms old, and it adds what it sent since (`stale: 100 ms`); here they are exact by
    default.

    Complexity: O(replicas).
    """

    def __init__(self, *, waiting_weight: float = 4.0, stale: float | str = 0.0, add_sent: bool = True) -> None:
        self._weight = number("waiting_weight", waiting_weight, 0)
        self.stale_s = seconds("stale", stale)
        self.adds_sent = switch("add_sent", add_sent)
        self._next = 0

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        count = len(replicas)
        chosen = min(range(count), key=lambda i: (self._load(replicas[i]), (i - self._next) % count))
        self._next = (chosen + 1) % count
        return chosen

    def _load(self, replica: ReplicaView) -> float:
        return self._weight * replica.waiting + replica.running
