"""One point of the plan: what is measured once per pass, and what it is expected to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Key = Mapping[str, int | str]
EVENT_S = 150e-6
"""Seconds around every sample: a short wait on the GPU while the host submits, two events, Python."""
FLUSH = 2.5
"""A cold sample is preceded by reading so many times the size of L2."""


@dataclass(frozen=True)
class Point:
    """A measurement. `key` names its parameters; sizes are in bytes or elements as the bench says.

    seconds: predicted for one pass, everything included. priority: 0 is what a profile cannot do without; the highest
    numbers are dropped first when time is short. heldout: never fitted, only compared with.
    """

    bench: str
    key: Key
    seconds: float
    priority: int = 1
    heldout: bool = False
    samples: int = 15
    warmups: int = 3
    cold: bool = True

    @property
    def name(self) -> str:
        """The same for the same point in every plan: `decode batch=4 seq=128 ...`."""
        return " ".join((self.bench, *(f"{name}={value}" for name, value in self.key.items())))


@dataclass(frozen=True)
class Costs:
    """What the plan is predicted with: a few rates of the machine, SI units."""

    hbm: float
    l2: float
    gemm: float
    attention: float
    link: float
    launch: float
    l2_bytes: int
    per_copy: Mapping[str, float]
    """Seconds per block of each copy method."""
    memcpy: float = 10e9
    """One host thread, or copies from memory that is not pinned, bytes/s."""

    def flush(self, cold: bool) -> float:
        """Seconds of making a sample cold."""
        return FLUSH * self.l2_bytes / self.hbm if cold else 0.0

    def moved(self, nbytes: float) -> float:
        """Seconds of a kernel that reads and writes so many bytes."""
        return self.launch + nbytes / self.hbm

    def product(self, nbytes: float, flops: float) -> float:
        """Seconds of a matrix product."""
        return self.launch + max(nbytes / self.hbm, flops / self.gemm)


def point(
    costs: Costs,
    bench: str,
    seconds: float,
    key: Key,
    *,
    priority: int = 1,
    heldout: bool = False,
    samples: int = 15,
    warmups: int = 3,
    cold: bool = True,
) -> Point:
    """A point whose single execution is expected to take `seconds`."""
    total = (samples + warmups) * (seconds + costs.flush(cold) + EVENT_S)
    return Point(bench, key, total, priority, heldout, samples, warmups, cold)
