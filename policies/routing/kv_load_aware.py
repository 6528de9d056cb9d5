"""Where the least KV is held and asked for."""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import RequestView
from policies.options import number, seconds, switch
from policies.routing.base import ReplicaView, Router


class KVLoadAware(Router):
    """The replica with the least KV, held by its requests or asked for by those that have no token yet; of equals, in
    turn.

    asked_weight   what a prompt token of a request without a token counts, in tokens held; 0: held ones alone, so that
                   a queue counts nothing
    stale          time between two reports of the replicas, which is how old what it knows may be; 0: exact
    add_sent       with `stale`: what was sent there since the last report counts as waiting

    What a prompt in the middle of its prefill holds already counts twice, at most one prompt per replica. Requests
    count by their length, where `least_loaded` takes all for alike; caches count nothing, where `prefix_aware` takes
    off what of the prompt is cached.

    Source: Llumnix (Sun et al., OSDI 2024, section 4.4: dispatch to the instance with the least virtual usage, in which
    queued requests count what they ask for); the KV-cache-utilisation and queue scorers of llm-d's scheduler.

    Complexity: O(replicas).
    """

    def __init__(self, *, asked_weight: float = 1.0, stale: float | str = 0.0, add_sent: bool = True) -> None:
        self._weight = number("asked_weight", asked_weight, 0)
        self.stale_s = seconds("stale", stale)
        self.adds_sent = switch("add_sent", add_sent)
        self._next = 0

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        count = len(replicas)

        def load(i: int) -> tuple[float, int]:
            return replicas[i].active_tokens + self._weight * replicas[i].prompt_tokens, (i - self._next) % count

        chosen = min(range(count), key=load)
        self._next = (chosen + 1) % count
        return chosen
