"""How one sample is taken: what runs before it untimed, what is timed, and on which clock.

On a GPU: the L2 is made cold by reading (clean lines cost nothing to evict, written ones would be written back while
the sample runs), a short wait on the GPU lets the host submit everything first, and CUDA events stand around the
kernels. The host's own time of submission is kept beside it. A sample that the GPU began before the host had submitted
all of it would time the host: it is taken again after a longer wait. On the CPU there is the host's clock alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from calibration.suite.lab import Lab

Launch = Callable[[int], object]
"""Called with the number of the sample (negative in warm-ups), so that it can rotate buffers."""
NOISY, BIMODAL, BELOW = 0.15, 0.7, 0.97
"""Flags: quartiles further apart than 15 % of the median; the fastest below 70 % of it; faster than possible."""
WAIT_STEPS = 400
"""Dependent loads from L2 that the GPU makes while the host submits a sample: about 0.1 ms to begin with."""
TRIES = 7


class Reading(NamedTuple):
    """One sample: seconds on the device, seconds that the host took to submit, and what else was read (numbers).

    late: the GPU had begun before the host had submitted everything, so the host's time may be in it.
    """

    device_s: float
    host_s: float
    extra: dict[str, float] = {}  # noqa: RUF012 -- never written to
    late: bool = False


@dataclass
class Patience:
    """How long the GPU waits while the host submits, in steps of `Lab.wait`; found out while sampling."""

    steps: int

    def sample(self, once: Callable[[int], Reading]) -> Reading:
        """`once` with so many steps, again if it was late; from the second time on with twice as many."""
        for attempt in range(TRIES):
            reading = once(self.steps)
            if not reading.late:
                break
            if attempt:  # the first time something was compiled or allocated, perhaps
                self.steps *= 2
        return reading


class Trial(Protocol):
    """Something that can be sampled. floor_s: no hardware is faster (0: unknown)."""

    nbytes: float
    flops: float
    floor_s: float

    def sample(self, lab: Lab, number: int, cold: bool) -> Reading:
        """Take one sample."""
        ...


@dataclass
class Kernel:
    """Work on the compute stream. `before` runs untimed after the L2 was made cold; a sample is `repeats` launches."""

    launch: Launch
    nbytes: float = 0.0
    flops: float = 0.0
    floor_s: float = 0.0
    before: Launch | None = None
    repeats: int = 1
    wait: bool = True
    """False where the submission itself is measured."""
    blocking: bool = False
    """Whether the host cannot submit it without waiting for the GPU, as copies of memory that is not pinned."""
    extra: dict[str, float] = field(default_factory=dict)
    _patience: Patience = field(default_factory=lambda: Patience(WAIT_STEPS))

    def sample(self, lab: Lab, number: int, cold: bool) -> Reading:
        """Seconds per launch."""
        if lab.cpu:
            self._prepare(lab, number, cold)
            started = lab.clock()
            for _ in range(self.repeats):
                self.launch(number)
            seconds = (lab.clock() - started) / self.repeats
            return Reading(seconds, seconds, self.extra)
        if not self.wait or self.blocking:
            return self._once(lab, number, cold, self._patience.steps)._replace(late=False)
        return self._patience.sample(lambda steps: self._once(lab, number, cold, steps))

    def _prepare(self, lab: Lab, number: int, cold: bool) -> None:
        if cold:
            lab.flush()
        if self.before:
            self.before(number)

    def _once(self, lab: Lab, number: int, cold: bool, steps: int) -> Reading:
        self._prepare(lab, number, cold)
        start, end = lab.event(), lab.event()
        if self.wait:
            lab.wait(steps)
        started = time.perf_counter()
        start.record()
        for _ in range(self.repeats):
            self.launch(number)
        end.record()
        host, late = time.perf_counter() - started, lab.has_passed(start)
        end.synchronize()
        return Reading(1e-3 * start.elapsed_time(end) / self.repeats, host / self.repeats, self.extra, late)


@dataclass
class Custom:
    """A trial with its own way of taking a sample."""

    take: Callable[[int], Reading]
    nbytes: float = 0.0
    flops: float = 0.0
    floor_s: float = 0.0

    def sample(self, lab: Lab, number: int, cold: bool) -> Reading:
        """Take one sample."""
        if cold:
            lab.flush()
        return self.take(number)


@dataclass(frozen=True)
class Measured:
    """All samples of one point in one pass."""

    readings: tuple[Reading, ...]
    flags: tuple[str, ...]

    @property
    def median_s(self) -> float:
        """Median of the seconds on the device."""
        return statistics.median(reading.device_s for reading in self.readings)


def measure(lab: Lab, trial: Trial, samples: int, warmups: int, cold: bool) -> Measured:
    """Warm up, take samples, and say what is odd about them."""
    for number in range(-warmups, 0):
        trial.sample(lab, number, cold)
    readings = tuple(trial.sample(lab, number, cold) for number in range(samples))
    flags = flags_of([reading.device_s for reading in readings], trial.floor_s)
    late = sum(reading.late for reading in readings) > samples / 2
    return Measured(readings, (*flags, "late") if late else flags)


def flags_of(seconds: list[float], floor_s: float) -> tuple[str, ...]:
    """What is odd about samples of one point."""
    ordered, median = sorted(seconds), statistics.median(seconds)
    quarter, three = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    odd = {
        "below_floor": median < BELOW * floor_s,
        "noisy": three - quarter > NOISY * median,
        "bimodal": ordered[0] < BIMODAL * median,
    }
    return tuple(name for name, is_so in odd.items() if is_so)
