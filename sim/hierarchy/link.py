"""A link with one copy engine: where transfers wait, and how long they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hw_profiles.cost_models import LinkModel
from sim.clock import Clock
from sim.recorder import Recorder


@dataclass(frozen=True)
class Transfer:
    """What is to be copied over a link."""

    src: str
    dst: str
    size: int
    """Bytes."""
    copies: int
    """Separate copies (one per engine block), each with its own set-up time."""
    reason: str
    """"load" (toward the GPU) or "store" (away from it)."""


class CopyEngine:
    """One direction of one GPU's link: a serial, non-preemptive server in order of submission.

    Time of a transfer = copies x alpha + bytes / beta (alpha-beta model per copy; calibration.md 1.4: one copy engine
    per direction, non-preemptive, in ready order). Both directions run at the same time without slowing each other.
    """

    def __init__(self, name: str, replica: int, model: LinkModel, clock: Clock, recorder: Recorder) -> None:
        self.name = name
        self.replica = replica
        self.model = model
        self.free_at = 0.0
        self.busy_s = 0.0
        self.bytes = 0
        self._clock = clock
        self._recorder = recorder

    def service_s(self, transfer: Transfer) -> float:
        """Seconds that the transfer occupies the engine."""
        return self.model.seconds(transfer.size, transfer.copies)

    def submit(self, now: float, transfer: Transfer, done: Callable[[], None], not_before: float = 0.0) -> float:
        """Queue the transfer at time `now`; `done()` is called when its last byte has arrived, at the time returned.

        `not_before` holds it back until its destination is free.
        """
        start = max(now, self.free_at, not_before)
        service = self.service_s(transfer)
        end = start + service
        self.free_at = end
        self.busy_s += service
        self.bytes += transfer.size
        self._recorder.transfer(self.name, self.replica, transfer, now, start, end)
        self._clock.at(end, done)
        return end
