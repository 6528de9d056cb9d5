"""Weights on their way into HBM."""

from __future__ import annotations

from collections.abc import Callable

from hw_profiles.models import ModelSpec
from sim.clock import Clock
from sim.cost.parallel import Parallel
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.transfer import Transfer

STORE, HBM = "weights", "weights in HBM"
"""Ends of such a transfer: no tier holds them."""
REASON = "weights"


def replica_bytes(model: ModelSpec, parallel: Parallel) -> int:
    """Bytes of weights on all GPUs of a replica, copies included."""
    stages = model.stages(parallel.pp)
    split = parallel.expert_parallel
    each = (model.weight_bytes_at(parallel.tp, expert_parallel=split, stage=stage) for stage in stages)
    return parallel.tp * sum(each)


class WeightLoad:
    """Weights that cross a replica's host link a piece (a layer) after another, the next when one has arrived.

    So KV that others load over the same link waits for a piece at most. rate: at which they reach host memory,
    bytes/s; None: they are there. done: called when the last piece has arrived, unless it was cancelled.
    """

    def __init__(
        self, clock: Clock, link: CopyEngine, size: int, pieces: int, rate: float | None, done: Callable[[], None]
    ) -> None:
        self.cancelled = False
        self.arrived = 0
        """Bytes in HBM."""
        self.size = size
        self._clock = clock
        self._link = link
        self._pieces = pieces
        self._rate = rate
        self._done = done
        self._begun_s = clock.now
        self._next = 0
        self._await_piece()

    def cancel(self) -> None:
        """No further piece is sent; the one under way arrives in vain."""
        self.cancelled = True

    def _await_piece(self) -> None:
        """Send the next piece when it is in host memory."""
        if self._rate is None:
            self._send()
            return
        there_s = self._begun_s + self._end_of(self._next) / self._rate
        self._clock.at(max(self._clock.now, there_s), self._send)

    def _send(self) -> None:
        if self.cancelled:
            return
        size = self._end_of(self._next) - self.arrived
        self._link.submit(Transfer(STORE, HBM, size, 1, REASON), self._came)

    def _came(self) -> None:
        self.arrived = self._end_of(self._next)
        self._next += 1
        if self.cancelled:
            return
        if self._next < self._pieces:
            self._await_piece()
        else:
            self._done()

    def _end_of(self, piece: int) -> int:
        return self.size * (piece + 1) // self._pieces
