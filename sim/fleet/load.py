"""What a scaling policy is told of the load of a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sim.clock import Clock
from sim.engine.sequence import Sequence


class Seen(NamedTuple):
    """Of one window: see policies.fleet.base.FleetWindow."""

    arrived: int
    finished: int
    missed: int
    load: float
    peak: int


class Load:
    """Requests in the system, and those that came and went since somebody looked.

    slo: bounds by metric and statistic, s; a request misses those on its own TTFT, TPOT and end-to-end time.
    """

    def __init__(self, clock: Clock, slo: Mapping[str, float]) -> None:
        self._clock = clock
        self._bounds: dict[str, float] = {}
        for key, bound in slo.items():
            metric = key.rpartition("_")[0]
            self._bounds[metric] = min(bound, self._bounds.get(metric, bound))
        self._here = self._peak = 0
        self._arrived = self._finished = self._missed = 0
        self._area = self._at = self._taken = 0.0

    def came(self) -> None:
        """A request arrives."""
        self._account()
        self._here += 1
        self._arrived += 1
        self._peak = max(self._peak, self._here)

    def went(self, seq: Sequence) -> None:
        """A request has ended."""
        self._account()
        self._here -= 1
        self._finished += 1
        ttft, whole = seq.first_token_s - seq.arrival_s, seq.finish_s - seq.arrival_s
        own = {"ttft": ttft, "e2e": whole, "tpot": (whole - ttft) / max(1, seq.output_tokens - 1)}
        self._missed += any(own[metric] > bound for metric, bound in self._bounds.items() if metric in own)

    def refused(self) -> None:
        """A request that had arrived is turned away."""
        self._account()
        self._here -= 1
        self._missed += 1

    def take(self) -> Seen:
        """What happened since it was taken last."""
        self._account()
        span = self._clock.now - self._taken
        mean = self._area / span if span else float(self._here)
        seen = Seen(self._arrived, self._finished, self._missed, mean, self._peak)
        self._arrived = self._finished = self._missed = 0
        self._area, self._peak, self._taken = 0.0, self._here, self._clock.now
        return seen

    def _account(self) -> None:
        self._area += self._here * (self._clock.now - self._at)
        self._at = self._clock.now
