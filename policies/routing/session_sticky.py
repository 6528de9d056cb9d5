"""A conversation stays where it began."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf

from policies.base import RequestView
from policies.options import number, seconds, switch
from policies.routing.base import ReplicaView, Router


class SessionSticky(Router):
    """The turns of a conversation go to the replica of its first one; that goes where the fewest requests are.

    overload   a replica is overloaded if, with this request, it would have more than this many times the mean number
               of requests, rounded up: the conversation then moves to the one with the fewest, and stays there. By
               default none ever is
    stale      time between two reports of the replicas, which is how old the loads that it knows may be; 0: exact
    add_sent   with `stale`: what was sent there since the last report counts as waiting

    A conversation whose replica is gone moves too. Requests of no conversation go where the fewest are; of equals, in
    turn. It knows nothing of caches: what a conversation keeps is found again since it stays.

    Source: session affinity as the `session` router of vLLM's production stack has it (by a key of the request's
    header, hashed); `overload` is the bound of consistent hashing with bounded loads (Mirrokni et al., SODA 2018).

    Complexity: O(replicas); memory in proportion to the conversations.
    """

    def __init__(self, *, overload: float | None = None, stale: float | str = 0.0, add_sent: bool = True) -> None:
        self._overload = inf if overload is None else number("overload", overload, 1)
        self.stale_s = seconds("stale", stale)
        self.adds_sent = switch("add_sent", add_sent)
        self._home: dict[int, int] = {}
        self._next = 0

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        home = self._home.get(request.session) if request.session >= 0 else None
        place = next((i for i, replica in enumerate(replicas) if replica.index == home), None)
        loads = [replica.running + replica.waiting for replica in replicas]
        count = len(loads)
        if place is not None and (self._overload == inf or loads[place] < ceil(self._limit(sum(loads) + 1, count))):
            return place
        chosen = min(range(count), key=lambda i: (loads[i], (i - self._next) % count))
        self._next = (chosen + 1) % count
        if request.session >= 0:
            self._home[request.session] = replicas[chosen].index
        return chosen

    def _limit(self, requests: int, count: int) -> float:
        return self._overload * requests / count
