"""What the steps of a stride take."""

from __future__ import annotations

import numpy as np

from sim.cost.layer import Floats

Seconds = float | Floats
"""The same for every step of a stride (or of the only one), or float64[steps]."""


class StepTimes:
    """What each step takes, and what that is made of, in seconds.

    works   kernels beside the model's own: of plans within a sequence (`sim.cost.planned`), of a drafter
            (`sim.cost.speculation`)
    moves   what layers wait for the copies of such plans
    """

    __slots__ = ("attention", "exchange", "launch", "linear", "moves", "pipeline", "seconds", "works")

    def __init__(
        self,
        seconds: Seconds,
        linear: Seconds,
        attention: Seconds,
        exchange: Seconds,
        launch: Seconds = 0.0,
        pipeline: Seconds = 0.0,
        works: Seconds = 0.0,
        moves: Seconds = 0.0,
    ) -> None:
        self.seconds = seconds
        self.linear = linear
        self.attention = attention
        self.exchange = exchange
        self.launch = launch
        self.pipeline = pipeline
        self.works = works
        self.moves = moves


def at(seconds: Seconds, step: int) -> float:
    """The seconds of one step."""
    return seconds if isinstance(seconds, float) else float(seconds[step])


def total(seconds: Seconds, steps: int) -> float:
    """Sum over the first `steps` steps."""
    if isinstance(seconds, float):
        return seconds * steps
    return float(np.add.reduce(seconds[:steps])) if steps > 1 else float(seconds[0])
