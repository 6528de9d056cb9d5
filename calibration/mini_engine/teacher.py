"""The simulator as a pupil: told what every measured step was made of, it says how long the step takes.

No scheduling comes between, so an error is the cost model's. Copies are told by when they were submitted and how many
pages they had; the simulator's copy engine says when they move, and its interference model what that costs the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.mini_engine.engine import StepRecord
from calibration.mini_engine.priced import step_seconds
from calibration.mini_engine.setting import Variant
from hw_profiles.cost_models import CopyModel
from hw_profiles.profile import Profile
from sim.cost.step import StepCost

Floats = npt.NDArray[np.float64]
CLASSES = ("decode", "mixed", "h2d", "d2h", "both")
"""Steps that only decode and steps with prompts, no copy in either; steps beside copies by their direction."""


@dataclass(frozen=True)
class Errors:
    """Relative errors predicted / measured - 1 of steps; p99 is of their magnitude."""

    n: int
    mape: float
    bias: float
    p99: float


@dataclass(frozen=True)
class Lesson:
    """Predicted and measured seconds of every step, and its class."""

    predicted: Floats
    measured: Floats
    classes: tuple[str, ...]

    def errors(self, *names: str) -> Errors | None:
        """Of the steps of some classes (default: all); None if there are none."""
        keep = np.array([not names or name in names for name in self.classes], dtype=bool)
        if not keep.any():
            return None
        signed = self.predicted[keep] / self.measured[keep] - 1
        size = np.abs(signed)
        return Errors(len(signed), float(size.mean()), float(signed.mean()), float(np.quantile(size, 0.99)))


class Links:
    """The profile's copy engines, as a variant uses them."""

    def __init__(self, profile: Profile, variant: Variant, page_bytes: int) -> None:
        self.page_bytes = page_bytes
        self.models: Mapping[str, CopyModel] = {
            direction: profile.copy_model(f"pcie_{direction}", variant.method) for direction in ("h2d", "d2h")
        }

    def seconds(self, direction: str, pages: float) -> float:
        """Of one transfer alone."""
        return self.models[direction].seconds(pages * self.page_bytes, pages)

    def moved(self, steps: Sequence[StepRecord]) -> dict[str, Floats]:
        """Pages that move during each step, by direction: each direction is one engine that serves in order.

        What is logged as submitted with a step was submitted when the step before had ended.
        """
        starts, ends = (np.array([getattr(step, name) for step in steps]) for name in ("start", "end"))
        moved = {direction: np.zeros(len(steps)) for direction in self.models}
        free = dict.fromkeys(self.models, 0.0)
        for number, step in enumerate(steps):
            ready = float(ends[number - 1]) if number else 0.0
            for direction, pages in step.submitted.items():
                begin, lasts = max(ready, free[direction]), self.seconds(direction, pages)
                free[direction] = begin + lasts
                overlap = np.minimum(ends, begin + lasts) - np.maximum(starts, begin)
                moved[direction] += np.maximum(overlap, 0.0) / lasts * pages
        return moved


def teach(
    steps: Sequence[StepRecord], cost: StepCost, links: Links, variant: Variant, *, contention: bool = True
) -> Lesson:
    """Predict every step. `cost` has the host's time in it; without `contention`, copies cost steps nothing."""
    moved = links.moved(steps)
    predicted, classes = [], []
    for number, step in enumerate(steps):
        seconds = step_seconds(cost, step.decodes, step.context, step.rows, step.chunks)
        pages = {direction: float(values[number]) for direction, values in moved.items()}
        if variant.synchronous:
            pages = {direction: float(count) for direction, count in step.submitted.items()}
            seconds += sum(links.seconds(direction, count) for direction, count in pages.items())
        elif contention:
            seconds += _slowed(cost, links, step, seconds, pages)
        predicted.append(seconds)
        classes.append(_class(step, pages))
    measured = np.array([step.seconds for step in steps])
    return Lesson(np.array(predicted), measured, tuple(classes))


def _slowed(cost: StepCost, links: Links, step: StepRecord, seconds: float, pages: Mapping[str, float]) -> float:
    """Seconds that copies add to a step, as the simulator charges them."""
    model = cost.interference
    if model is None or not any(pages.values()):
        return 0.0
    weighted = sm_seconds = 0.0
    for direction, count in pages.items():
        sms = links.models[direction].sms
        weighted += model.kappa(direction, sms) * count * links.page_bytes
        sm_seconds += sms * count * links.seconds(direction, 1)
    tokens = step.decodes + sum(count for count, _ in step.chunks)
    bound = cost.bound(tokens, step.rows, step.decodes, step.context, list(step.chunks))
    return model.extra_s(seconds, bound, weighted, sm_seconds)


def _class(step: StepRecord, pages: Mapping[str, float]) -> str:
    loads, stores = (pages.get(direction, 0.0) > 0 for direction in ("h2d", "d2h"))
    if loads and stores:
        return "both"
    if loads or stores:
        return "h2d" if loads else "d2h"
    return "mixed" if step.chunks else "decode"
