"""Residual tables from the ratios measured / formula at scattered points.

The logarithm of the ratio is interpolated by a linear radial basis function (each grid point from its nearest
`NEIGHBOURS` points, distances in octaves), kept within the range of the points, and put on a grid. How much it is
smoothed, and whether a table helps at all, is decided on the fitted points alone: `FOLDS` parts of them are left out in
turn. SOURCE of the interpolant: scipy.interpolate.RBFInterpolator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import RBFInterpolator

from calibration.fitting import Array
from hw_profiles.residual import Residual, octaves

NEIGHBOURS = 40
SMOOTHINGS = (0.0, 0.1, 0.3, 1.0)
FOLDS = 12
FEWEST = 6
"""Points from which on a table is tried."""
DIGITS = 3
"""Decimals of the ratios in a profile: finer than any measured repeatability."""

Axes = Sequence[tuple[str, Array]]
"""Names and grids of a table, in the order of the coordinates."""


def fit_residual(where: Sequence[Array], ratio: Array, axes: Axes) -> Residual | None:
    """The table of `ratio` (measured / formula) at the coordinates `where`, one array per axis; None if none helps."""
    points = np.stack([octaves(x.astype(np.float64)) for x in where], axis=1)
    logs = np.log(ratio)
    if len(logs) < FEWEST:
        return None
    missed = {smoothing: _missed(points, logs, smoothing) for smoothing in SMOOTHINGS}
    smoothing = min(missed, key=lambda key: missed[key])
    if missed[smoothing] >= float(np.abs(logs).mean()):
        return None
    grids = [octaves(grid.astype(np.float64)) for _, grid in axes]
    mesh = np.stack([x.ravel() for x in np.meshgrid(*grids, indexing="ij")], axis=1)
    values = np.exp(_interpolate(points, logs, mesh, smoothing)).round(DIGITS)
    return Residual(tuple((name, tuple(map(float, grid))) for name, grid in axes), tuple(values.tolist()))


def _missed(points: Array, logs: Array, smoothing: float) -> float:
    """Mean |log| that remains at points left out."""
    left = np.zeros_like(logs)
    fold = np.arange(len(logs)) % FOLDS
    for number in np.unique(fold):
        out = fold == number
        left[out] = logs[out] - _interpolate(points[~out], logs[~out], points[out], smoothing)
    return float(np.abs(left).mean())


def _interpolate(points: Array, logs: Array, where: Array, smoothing: float) -> Array:
    distinct, inverse = np.unique(points.round(9), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    means = np.bincount(inverse, weights=logs) / np.bincount(inverse)
    if len(distinct) == 1:
        return np.full(len(where), means[0])
    neighbours = min(NEIGHBOURS, len(distinct))
    surface = RBFInterpolator(distinct, means, neighbours, smoothing, kernel="linear", degree=0)
    return np.asarray(np.clip(surface(where), means.min(), means.max()), dtype=np.float64)
