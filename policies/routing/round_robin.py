"""One replica after the other."""

from __future__ import annotations

from collections.abc import Sequence

from policies.base import RequestView
from policies.routing.base import ReplicaView, Router


class RoundRobin(Router):
    """The requests of the trace go to the replicas in turn, by their number: blind to load and caches.

    Source: the default of NVIDIA Dynamo's frontend and of vLLM's production stack.

    Complexity: O(1).
    """

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        return request.index % len(replicas)
