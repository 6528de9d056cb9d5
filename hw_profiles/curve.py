"""A continuous function of one number that is linear between given places, and constant outside them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Curve:
    """The same bits for a number as for an array that has it, which strides and single steps of a run rely on."""

    __slots__ = ("_base", "_bases", "_place", "_places", "_slope", "_slopes")

    def __init__(self, places: Sequence[float], values: Sequence[float]) -> None:
        """`values` at `places`, which ascend; at least one."""
        x, y = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
        # Pieces: before the first place, from each place to the next, from the last one on.
        self._places, self._bases = np.concatenate((x[:1], x)), np.concatenate((y[:1], y))
        self._slopes = np.concatenate(([0.0], np.diff(y) / np.diff(x), [0.0]))
        self._place: list[float] = self._places.tolist()
        self._base: list[float] = self._bases.tolist()
        self._slope: list[float] = self._slopes.tolist()

    def at(self, x: float) -> float:
        """The value at `x`."""
        i = bisect_right(self._place, x, 1) - 1
        return self._base[i] + self._slope[i] * (x - self._place[i])

    def along(self, x: Array) -> Array:
        """The values at each of `x`, which ascend: float64[n]."""
        place = self._place
        first = bisect_right(place, x.item(0), 1) - 1
        if first + 1 == len(place) or x.item(-1) < place[first + 1]:
            values: Array = x - place[first]
            values *= self._slope[first]
            values += self._base[first]
            return values
        pieces = self._places[1:].searchsorted(x, side="right")
        spread: Array = self._bases[pieces] + self._slopes[pieces] * (x - self._places[pieces])
        return spread

    def of_multiples(self, factor: float) -> Curve:
        """The curve whose value at x is this one's at `factor` * x; factor > 0."""
        return Curve((self._places[1:] / factor).tolist(), self._bases[1:].tolist())
