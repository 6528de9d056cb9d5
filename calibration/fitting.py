"""Robust fits of cost formulas to measured times, their intervals and their scores.

Least squares on log(model / measured) with soft-L1 loss (scale 0.05), so that a 10 % miss counts the same at 5 us and
at 5 ms and outliers do not steer; parameters bounded below; 90 % intervals by bootstrap over points, or over groups of
points whose errors are correlated (the rows of one matrix shape). All quantities in SI units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]
Predict = Callable[[Array, Rows], Array]
"""(parameters, row numbers) -> seconds."""


@dataclass(frozen=True)
class Score:
    """Relative errors |predicted / measured - 1| over n points; bias is the signed mean."""

    n: int
    mape: float
    p90: float
    max: float
    bias: float


@dataclass(frozen=True)
class Fit:
    """Fitted parameters, their 90 % intervals, the scores on the fitted rows and on held-out rows."""

    params: dict[str, float]
    interval: dict[str, tuple[float, float]]
    score: Score
    heldout: Score


def score(predicted: Array, measured: Array) -> Score:
    """Score of predictions against measurements, both positive, one shape, at least one."""
    signed = predicted / measured - 1
    error = np.abs(signed)
    p90 = float(np.quantile(error, 0.9))
    return Score(len(error), float(error.mean()), p90, float(error.max()), float(signed.mean()))


def robust_fit(
    predict: Predict, start: Array, least: Array, measured: Array, rows: Rows, most: Array | None = None
) -> Array:
    """Parameters in `least`..`most` that minimise soft-L1 of log(predict(x, rows) / measured[rows]); start > 0."""
    start = np.maximum(start, least)
    if most is not None:
        start = np.minimum(start, most)

    def residual(z: Array) -> Array:
        return np.log(np.maximum(predict(z * start, rows), 1e-30) / measured[rows])

    # Searched as multiples of the start: finite differences want numbers near 1, not 1e-6 or 1e12.
    bounds = (least / start, np.inf if most is None else most / start)
    found = least_squares(residual, np.ones_like(start), bounds=bounds, loss="soft_l1", f_scale=0.05)
    return np.asarray(found.x * start, dtype=np.float64)


def bootstrap(
    predict: Predict,
    best: Array,
    least: Array,
    measured: Array,
    resamples: int,
    group: Rows | None = None,
    most: Array | None = None,
) -> tuple[Array, Array]:
    """(5 %, 95 %) of the parameters over refits of resampled rows, started at `best`; both `best` without resamples.

    group numbers the rows that are drawn together (each row alone by default).
    """
    rows = np.arange(len(measured))
    members = [rows[group == number] for number in np.unique(group)] if group is not None else list(rows[:, None])
    start = np.maximum(best, np.maximum(least, 1e-12) * (1 + 1e-6))
    if most is not None:
        start = np.minimum(start, most * (1 - 1e-6))
    rng = np.random.Generator(np.random.Philox(0))
    draws = [
        robust_fit(predict, start, least, measured, np.concatenate([members[i] for i in pick]), most)
        for pick in rng.integers(0, len(members), (resamples, len(members)))
    ]
    if not draws:
        return best, best
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    return np.minimum(low, best), np.maximum(high, best)


def fit(
    predict: Predict,
    start: Mapping[str, float],
    measured: Array,
    *,
    test: Mask,
    resamples: int,
    least: Mapping[str, float] | None = None,
) -> Fit:
    """Fit named parameters from `start` (all > 0) to all rows; scored on the rows that `test` marks by a fit without.

    least gives lower bounds (0 by default); resamples 0 skips the bootstrap: intervals are points.
    """
    x0 = np.array(list(start.values()))
    low = np.array([(least or {}).get(name, 0.0) for name in start])
    rows = np.arange(len(measured))
    best = robust_fit(predict, x0, low, measured, rows)
    blind = robust_fit(predict, x0, low, measured, rows[~test])
    edges = bootstrap(predict, best, low, measured, resamples)
    return Fit(
        params={name: float(best[i]) for i, name in enumerate(start)},
        interval={name: (float(edges[0][i]), float(edges[1][i])) for i, name in enumerate(start)},
        score=score(predict(best, rows), measured),
        heldout=score(predict(blind, rows[test]), measured[test]),
    )
