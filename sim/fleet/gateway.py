"""Requests that no replica takes yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sim.clock import Clock
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence
from sim.routing import Routing


class Gateway:
    """Sends requests on to the replicas that serve; those that find none with room wait here, first come first served.

    onward: sends a request to one of the members of the routing.
    most: requests that a replica takes at a time; None: any number.
    """

    def __init__(self, clock: Clock, routing: Routing, onward: Callable[[Sequence], None], most: int | None) -> None:
        self.waits: dict[int, float] = {}
        """Seconds that each request waited here which did, by its index."""
        self.most_waiting = 0
        self._clock = clock
        self._routing = routing
        self._onward = onward
        self._most = most
        self._serving: list[Replica] = []
        self._queue: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def serve(self, replicas: list[Replica]) -> None:
        """From now on these replicas take requests."""
        self._serving = replicas
        if replicas:
            self._routing.set_members(replicas)
        self.flush()

    def send(self, seq: Sequence) -> None:
        """A request comes."""
        if self._queue or not self._open():
            self._queue.append(seq)
            self.most_waiting = max(self.most_waiting, len(self._queue))
        else:
            self._onward(seq)

    def flush(self) -> None:
        """Send on what may now be sent."""
        while self._queue and self._open():
            seq = self._queue.popleft()
            self.waits[seq.index] = self._clock.now - seq.entered_s
            self._onward(seq)

    def _open(self) -> bool:
        """True if a replica has room; those that have are then the members of the routing."""
        if self._most is None:
            return bool(self._serving)
        room = [replica for replica in self._serving if requests(replica) < self._most]
        if room and room != list(self._routing.members):
            self._routing.set_members(room)
        return bool(room)


def requests(replica: Replica) -> int:
    """Requests that a replica has."""
    return len(replica.batch.running) + replica.batch.queue_length
