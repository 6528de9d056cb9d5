"""What the steps of a stride take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sim.cost.layer import Floats

Seconds = float | Floats
"""The same for every step of a stride (or of the only one), or float64[steps]."""


class StepTimes(NamedTuple):
    """What each step takes, and what that is made of, in seconds."""

    seconds: Seconds
    linear: Seconds
    attention: Seconds
    exchange: Seconds
    launch: Seconds = 0.0
    pipeline: Seconds = 0.0
    works: Seconds = 0.0
    """Kernels beside the model's own: of plans within a sequence (`sim.cost.planned`), of a drafter
    (`sim.cost.speculation`)."""
    moves: Seconds = 0.0
    """What layers wait for the copies of such plans."""


def at(seconds: Seconds, step: int) -> float:
    """The seconds of one step."""
    return seconds if isinstance(seconds, float) else float(seconds[step])


def total(seconds: Seconds, steps: int) -> float:
    """Sum over the first `steps` steps."""
    if isinstance(seconds, float):
        return seconds * steps
    return float(np.add.reduce(seconds[:steps])) if steps > 1 else float(seconds[0])
