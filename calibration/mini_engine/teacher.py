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


def teach(
    steps: Sequence[StepRecord],
    cost: StepCost,
    profile: Profile,
    variant: Variant,
    page_bytes: int,
    *,
    contention: bool = True,
) -> Lesson:
    """Predict every step. `cost` has the host's time in it; without `contention`, copies cost steps nothing."""
    links = {d: profile.copy_model(f"pcie_{d}", variant.method) for d in ("h2d", "d2h")} if _copies(steps) else {}
    moved = _moved(steps, {d: lambda n, m=model: m.seconds(n * page_bytes, n) for d, model in links.items()})
    predicted, classes = [], []
    for number, step in enumerate(steps):
        seconds = step_seconds(cost, step.decodes, step.context, step.rows, step.chunks)
        pages = {direction: float(values[number]) for direction, values in moved.items()}
        waiting = 0.0
        if variant.synchronous:
            waiting = sum(links[d].seconds(n * page_bytes, n) for d, n in step.submitted.items())
            pages = dict.fromkeys(pages, 0.0) | {d: float(n) for d, n in step.submitted.items()}
        elif contention and cost.interference is not None and any(pages.values()):
            seconds += _slowed(cost, step, seconds, variant, pages, page_bytes, links)
        predicted.append(seconds + waiting)
        classes.append(_class(step, pages))
    measured = np.array([step.seconds for step in steps])
    return Lesson(np.array(predicted), measured, tuple(classes))


def _copies(steps: Sequence[StepRecord]) -> bool:
    return any(step.submitted for step in steps)


def _moved(steps: Sequence[StepRecord], seconds: Mapping[str, object]) -> dict[str, Floats]:
    """Pages that move during each step, by direction: each direction is one engine that serves in order.

    What is logged as submitted with a step was submitted when the step before had ended.
    """
    starts, ends = (np.array([getattr(step, name) for step in steps]) for name in ("start", "end"))
    moved = {direction: np.zeros(len(steps)) for direction in seconds}
    free = dict.fromkeys(seconds, 0.0)
    for number, step in enumerate(steps):
        ready = ends[number - 1] if number else 0.0
        for direction, pages in step.submitted.items():
            service = seconds[direction]
            assert callable(service)
            begin = max(float(ready), free[direction])
            lasts = service(pages)
            free[direction] = begin + lasts
            overlap = np.minimum(ends, begin + lasts) - np.maximum(starts, begin)
            moved[direction] += np.maximum(overlap, 0.0) / lasts * pages
    return moved


def _slowed(
    cost: StepCost,
    step: StepRecord,
    seconds: float,
    variant: Variant,
    pages: Mapping[str, float],
    page_bytes: int,
    links: Mapping[str, object],
) -> float:
    model = cost.interference
    assert model is not None
    weighted = sm_seconds = 0.0
    for direction, count in pages.items():
        link = links[direction]
        sms = int(getattr(link, "sms", 0)) if variant.method == "kernel" else 0
        weighted += model.kappa(direction, sms) * count * page_bytes
        if sms and count:
            per_page = link.seconds(page_bytes, 1)  # type: ignore[attr-defined]
            sm_seconds += sms * count * per_page
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
