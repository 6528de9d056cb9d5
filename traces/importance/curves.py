"""Lines through points, and sums of the normal distribution, for the providers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hw_profiles.lines import NOTHING, Line

Floats = npt.NDArray[np.float64]


GRAIN = 2.0**-32
"""Slopes are whole multiples of it, so that terms that cancel leave exactly nothing."""


def through(points: Sequence[tuple[float, float]]) -> Line:
    """The line in the context that is linear between `points` (context in tokens, value), level before and after.

    Contexts ascend and are rounded to whole tokens; a flat stretch costs no term. Slopes are rounded to GRAIN, which at
    a million tokens is a quarter of a thousandth: where the value is 0 before the first point, the line is 0 exactly.
    """
    value = points[0][1]
    line = Line(base=value)
    for (start, _), (end, high) in pairwise(points):
        first, last = round(start), round(end)
        slope = round((high - value) / (last - first) / GRAIN) * GRAIN if last > first else 0.0
        if slope:  # min(n, last) - min(n, first) grows between the two alone
            before = Line(caps=((first, -slope),)) if first else NOTHING
            line = line + Line(caps=((last, slope),)) + before
            value += slope * (last - first)
    return line


def thinned(points: Sequence[tuple[float, float]], share: float, least: float) -> list[tuple[float, float]]:
    """Few of `points`, with every other within `share` of its value, or `least`, of the line through them.

    SOURCE: Douglas and Peucker (1973).
    """
    if len(points) < 3:
        return list(points)
    (x0, y0), (x1, y1) = points[0], points[-1]
    slope = (y1 - y0) / (x1 - x0)
    errors = [abs(y - y0 - slope * (x - x0)) / max(share * y, least) for x, y in points[1:-1]]
    worst = max(errors)
    if worst <= 1:
        return [points[0], points[-1]]
    place = errors.index(worst) + 1
    return thinned(points[: place + 1], share, least)[:-1] + thinned(points[place:], share, least)


def above(z: Floats) -> Floats:
    """Share of a standard normal above `z`."""
    return np.array([0.5 * math.erfc(x / math.sqrt(2)) for x in z.ravel()]).reshape(z.shape)


def density(z: Floats) -> Floats:
    """Of a standard normal."""
    return np.asarray(np.exp(-z * z / 2) / math.sqrt(2 * math.pi))
