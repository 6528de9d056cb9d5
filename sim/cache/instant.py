"""A link on which nothing takes time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sim.hierarchy.link import CopyEngine
from sim.hierarchy.transfer import Transfer

Done = Callable[[], None]


class Instant(CopyEngine):
    """A copy engine whose transfers have arrived when the request in progress next waits for them."""

    under_way: deque[Done]
    """What to call for each transfer, in order; whoever makes the engine says where they go."""

    def submit(self, transfer: Transfer, done: Done) -> None:
        """The transfer is on its way."""
        self.under_way.append(done)
