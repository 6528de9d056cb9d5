"""A link on which nothing takes time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from sim.hierarchy.link import CopyEngine
from sim.hierarchy.transfer import Transfer

Done = Callable[[], None]


class Instant(CopyEngine):
    """A copy engine whose transfers have arrived when the request in progress next waits for them."""

    def __init__(self, arrived: deque[Done], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._under_way = arrived

    def submit(self, transfer: Transfer, done: Done) -> None:
        """The transfer is on its way."""
        self._under_way.append(done)
