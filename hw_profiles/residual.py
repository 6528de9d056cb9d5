"""Residual tables: measured / model on a grid of shapes, interpolated between its points.

A fitted formula says how time grows; what it misses (tiles, waves, split factors) is kept as a ratio at the fitted
points and multiplied in. Between points the ratio is multilinear in `octaves` of each coordinate, outside the grid it
is that of the nearest border point, so a formula keeps its slope and the efficiency of the border.

SOURCE of the method: a physical model times a table of ratios beats either alone on public attention and GEMM tables
(kvsim's fits, `docs/profiles.md`); aiconfigurator holds the border's utilisation outside its grid in the same way.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from hw_profiles.curve import Curve

Array = NDArray[np.float64]
Number = TypeVar("Number", float, Array)


def octaves(x: Number) -> Number:
    """log2 of x >= 0, linear within an octave: exact in binary floating point, the same bits for scalars and arrays.

    The difference from log2 is at most 0.09. Zero counts as a quarter.
    """
    if isinstance(x, np.ndarray):
        mantissas, exponents = np.frexp(x)
        return np.asarray(exponents + (2.0 * mantissas - 2.0))
    mantissa, exponent = math.frexp(x)
    return exponent + (2.0 * mantissa - 2.0)


@dataclass(frozen=True)
class Residual:
    """Ratios on the grid of `axes` (ascending coordinates > 0 by name), row-major: the last axis varies fastest."""

    axes: tuple[tuple[str, tuple[float, ...]], ...]
    ratio: tuple[float, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the coordinates are, in the order of `at`'s arguments."""
        return tuple(name for name, _ in self.axes)

    def at(self, *where: Number) -> Number:
        """The ratio at one coordinate per axis, scalars or arrays of one shape (or that broadcast to one)."""
        found: float | Array
        if any([isinstance(x, np.ndarray) for x in where]):  # noqa: C419 -- sooner than a generator
            found = self._sum_arrays([np.asarray(x) for x in where])
        else:
            found = self._sum_scalars(where)
        return cast(Number, found)

    def fixed(self, **coordinates: float) -> Residual:
        """The table at some coordinates, by name, over the axes that are left."""
        left = tuple(axis for axis in self.axes if axis[0] not in coordinates)
        points = dict(
            zip((name for name, _ in left), np.meshgrid(*(grid for _, grid in left), indexing="ij"), strict=True)
        )
        shape = tuple(len(grid) for _, grid in left)
        where = [points.get(name, np.asarray(coordinates.get(name))) for name in self.names]
        return Residual(left, tuple(np.broadcast_to(self.at(*where), shape).ravel().tolist()))

    def along(self, axis: int, others: Sequence[float]) -> Curve:
        """The ratio along one axis (its place among `axes`), at one coordinate for each of the others, in order.

        Octaves are linear between powers of two, so the ratio is between those and the points of the grid.
        """
        grid = self.axes[axis][1]
        low, high = (math.frexp(end)[1] for end in (grid[0], grid[-1]))
        powers = [2.0**exponent for exponent in range(low, high) if grid[0] < 2.0**exponent < grid[-1]]
        places = np.array(sorted({*grid, *powers}))
        where: list[Any] = [np.array(float(x)) for x in others]
        where.insert(axis, places)
        return Curve(places.tolist(), np.broadcast_to(self.at(*where), places.shape).tolist())

    def _sum_scalars(self, where: Sequence[Any]) -> float:
        corners = [(0, 1.0)]  # index and weight
        for (grid, stride), x in zip(self._grids, where, strict=True):
            low, share = _place(grid, octaves(x))
            first, rest = low * stride, 1.0 - share
            if not share:
                corners = [(index + first, weight) for index, weight in corners]
            elif not rest:
                corners = [(index + first + stride, weight) for index, weight in corners]
            else:
                second = first + stride
                corners = [
                    corner
                    for index, weight in corners
                    for corner in ((index + first, weight * rest), (index + second, weight * share))
                ]
        ratio, total = self.ratio, 0.0
        for index, weight in corners:
            total += weight * ratio[index]
        return total

    def _sum_arrays(self, where: Sequence[Array]) -> Array:
        places = [_places(grid, octaves(x)) for grid, x in zip(self._octaves, where, strict=True)]
        total: Array = np.zeros(())
        for steps, strides in self._corners:
            weight: Array = np.ones(())
            index: NDArray[np.intp] = np.zeros((), dtype=np.intp)
            for (low, share), step, stride in zip(places, steps, strides, strict=True):
                weight = weight * (share if step else 1.0 - share)
                index = index + (low + step) * stride
            total = total + weight * self._flat[index]
        return total

    @cached_property
    def _octaves(self) -> list[list[float]]:
        return [[octaves(x) for x in grid] for _, grid in self.axes]

    @cached_property
    def _grids(self) -> list[tuple[list[float], int]]:
        return list(zip(self._octaves, self._strides, strict=True))

    @cached_property
    def _corners(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Corners of a cell: a step (0 or 1) along every axis that has a cell, and the strides of the axes."""
        sizes = [len(grid) for _, grid in self.axes]
        return [(steps, self._strides) for steps in product(*((0, 1) if size > 1 else (0,) for size in sizes))]

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        sizes = [len(grid) for _, grid in self.axes]
        return tuple(math.prod(sizes[i + 1 :]) for i in range(len(sizes)))

    @cached_property
    def _flat(self) -> Array:
        return np.array(self.ratio)


def _place(grid: list[float], x: float) -> tuple[int, float]:
    """The cell that x is in (index of its lower end) and the share of the way to its upper end, in [0, 1]."""
    if len(grid) == 1:
        return 0, 0.0
    high = bisect_right(grid, x, 1, len(grid) - 1)
    low = grid[high - 1]
    return high - 1, min(1.0, max(0.0, (x - low) / (grid[high] - low)))


def _places(grid: list[float], x: Array) -> tuple[NDArray[np.intp], Array]:
    """`_place` of every x."""
    if len(grid) == 1:
        return np.zeros(x.shape, dtype=np.intp), np.zeros(x.shape)
    ends = np.array(grid)
    high = np.searchsorted(ends[1:-1], x, side="right") + 1
    low = ends[high - 1]
    return high - 1, np.minimum(1.0, np.maximum(0.0, (x - low) / (ends[high] - low)))
