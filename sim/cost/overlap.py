"""A step at the resolution of layers: copies over the host link beside the kernels of layers that run in turn.

With c_i the kernels of layer i, l_i what it loads and s_i what it stores,

    ahead:     arrived_i = max(begin_(i-1), arrived_(i-1)) + l_i     begin_i = max(end_(i-1), arrived_i)
    critical:  arrived_i = max(begin_i, arrived_(i-1)) + l_i         begin_i = end_(i-1), kernels from arrived_i on
    end_i = kernels' begin + c_i + h_i,   step = max(end_L, sum s_i, sum l_i)

one load after the other in the order of layers; h_i are stores that the next layer waits for. What the first layer
loads ahead started with the last layer of the step before. Other stores have the other direction of the link and
nothing waits for them (nor for loads `aside`), but a step cannot be shorter than what it copies one way takes: the next
one's would pile up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sim.cost.times import Seconds


class Run(NamedTuple):
    """`layers` in a row that are alike: seconds of kernels and of copies, each of one layer."""

    layers: int
    compute: Seconds
    critical: Seconds
    ahead: Seconds = 0.0
    store: Seconds = 0.0
    held: Seconds = 0.0
    """Stores that the next layer waits for."""
    aside: Seconds = 0.0
    """Loads that nothing waits for."""


def finish(runs: Sequence[Run]) -> Seconds:
    """When the last layer of a step is done, s after its start; float64[steps] if any part is."""
    copied = _sum([run.store * run.layers for run in runs if not _never(run.store)])
    if not all(_never(run.aside) for run in runs):
        copied = later(copied, _sum([(run.critical + run.ahead + run.aside) * run.layers for run in runs]))
    if all(_never(run.ahead) for run in runs):
        return later(_sum([(run.compute + run.critical + run.held) * run.layers for run in runs]), copied)
    end: Seconds = 0.0
    before: Seconds = -runs[-1].compute
    arrived = before
    for run in runs:
        for _ in range(run.layers):
            begin = end
            if not _never(run.ahead):
                arrived = later(before, arrived) + run.ahead
                begin = later(end, arrived)
            before = begin
            if not _never(run.critical):
                begin = arrived = later(begin, arrived) + run.critical
            end = begin + run.compute + run.held
    return later(end, copied)


def later(one: Seconds, other: Seconds) -> Seconds:
    """The larger of two, element by element."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.maximum(one, other)
    return max(one, other)


def _never(seconds: Seconds) -> bool:
    return isinstance(seconds, float) and seconds == 0.0


def _sum(parts: Sequence[Seconds]) -> Seconds:
    total: Seconds = 0.0
    for part in parts:
        total = total + part
    return total
