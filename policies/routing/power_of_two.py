"""The less loaded of two replicas drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import RequestView
from policies.options import seconds, switch, whole
from policies.routing.base import ReplicaView, Router
from traces.random import stream


class PowerOfTwo(Router):
    """The replica with the fewest requests, running and waiting, of a few drawn at random; of equals, the first drawn.

    choices   replicas that are drawn, all different; 1: a router that is blind and random
    stale     time between two reports of the replicas, which is how old what it knows may be; 0: exact
    add_sent   with `stale`: what was sent there since the last report counts as waiting

    Draws depend on the scenario's seed and the request alone, so they are the same in every variant of a scenario.

    Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (IEEE TPDS 2001); what old knowledge
    does to it and to others: "How Useful Is Old Information?" (IEEE TPDS 2000). The power_of_two policy of SGLang's and
    vLLM's routers.

    Complexity: O(choices), and O(replicas) for the draw.
    """

    def __init__(self, *, choices: int = 2, stale: float | str = 0.0, add_sent: bool = True) -> None:
        self._choices = whole("choices", choices, 1, 2**31)
        self.stale_s = seconds("stale", stale)
        self.adds_sent = switch("add_sent", add_sent)

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        count = len(replicas)
        draw = stream(self.seed, "routing.power_of_two", request.index)
        drawn = draw.choice(count, size=min(self._choices, count), replace=False).tolist()
        return int(min(drawn, key=lambda i: replicas[i].running + replicas[i].waiting))
