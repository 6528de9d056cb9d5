"""Decode attention at one batch size."""

from __future__ import annotations

import numpy as np

from hw_profiles.curve import Array, Curve


class DecodeCurve:
    """A `DecodeModel` at one batch size: max(floor, fixed + bytes / bandwidth), times its table's ratio.

    The times are those of the model, but for the rounding of its table's interpolation.
    """

    __slots__ = ("bandwidth", "fixed", "floor", "table")

    def __init__(self, floor: float, fixed: float, bandwidth: float, table: Curve | None) -> None:
        self.floor = floor
        self.fixed = fixed
        self.bandwidth = bandwidth
        self.table = table

    def seconds(self, nbytes: float) -> float:
        """Time for keys and values of `nbytes` in one layer."""
        seconds = max(self.floor, self.fixed + nbytes / self.bandwidth)
        return seconds if self.table is None else seconds * self.table.at(nbytes)

    def along(self, nbytes: Array) -> Array:
        """The same for each of `nbytes`, which ascend: float64[n], the same bits."""
        seconds: Array = nbytes / self.bandwidth
        seconds += self.fixed
        if seconds.item(0) < self.floor:
            np.maximum(self.floor, seconds, out=seconds)
        if self.table is not None:
            seconds *= self.table.along(nbytes)
        return seconds

    def ratio(self, nbytes: float) -> float:
        """Measured / formula at this work, 1 without a table."""
        return 1.0 if self.table is None else self.table.at(nbytes)

    def reading_s(self, nbytes: float) -> float:
        """What of the time grows with the bytes: none at the floor."""
        reading = nbytes / self.bandwidth
        if self.fixed + reading <= self.floor:
            return 0.0
        return reading * self.ratio(nbytes)
