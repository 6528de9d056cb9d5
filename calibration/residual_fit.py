"""Residual tables from the ratios measured / formula at scattered points.

The logarithm of the ratio is interpolated by a linear radial basis function (each grid point from its nearest
`NEIGHBOURS` points, distances in octaves), kept within the range of the points, and put on a grid. How much it is
smoothed, and whether a table helps at all, is decided on the fitted points alone: `FOLDS` parts of them are left out in
turn. SOURCE of the interpolant: scipy.interpolate.RBFInterpolator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
BETTER = 0.9
"""What another layout may miss, as a share of the best before it, to be taken instead."""


class Layout(NamedTuple):
    """Coordinates of the points, one array per axis; the axes; how far apart an octave of each is, in octaves."""

    where: Sequence[Array]
    axes: Axes
    stretch: tuple[float, ...] = ()


def best_residual(layouts: Sequence[Layout], ratio: Array) -> Residual | None:
    """The table of `ratio` (measured / formula) in the layout that predicts left-out points best; None if none helps.

    Layouts are given smaller tables first.
    """
    best: Residual | None = None
    least = np.inf
    for layout in layouts:
        missed, table = fit_residual(layout, ratio)
        if table is not None and missed < (BETTER * least if best else np.inf):
            best, least = table, missed
    return best


def fit_residual(layout: Layout, ratio: Array) -> tuple[float, Residual | None]:
    """What a table misses at left-out points, mean |log|, and the table, if it helps."""
    where, axes, stretch = layout
    scale = np.array(stretch or (1.0,) * len(axes))
    points = np.stack([octaves(x.astype(np.float64)) for x in where], axis=1) * scale
    logs = np.log(ratio)
    if len(logs) < FEWEST:
        return 0.0, None
    missed = {smoothing: _missed(points, logs, smoothing) for smoothing in SMOOTHINGS}
    smoothing = min(missed, key=lambda key: missed[key])
    if missed[smoothing] >= float(np.abs(logs).mean()):
        return 0.0, None
    grids = [octaves(grid.astype(np.float64)) for _, grid in axes]
    mesh = np.stack([x.ravel() for x in np.meshgrid(*grids, indexing="ij")], axis=1) * scale
    values = np.exp(_interpolate(points, logs, mesh, smoothing)).round(DIGITS)
    table = Residual(tuple((name, tuple(map(float, grid))) for name, grid in axes), tuple(values.tolist()))
    return missed[smoothing], table


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
