"""What verifying sequences bring to steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.cost.layer import Floats


class VerifyLoad(NamedTuple):
    """What sequences with several rows each bring to each of some steps; arrays have all steps.

    seqs: sequences. rows: int64, their tokens that run. attended: tokens that they attend, pairs: of a row and a token
    that it attends. windowed: (attended, pairs) inside each window. longest: tokens of the longest of them, if asked.
    """

    seqs: int
    rows: npt.NDArray[np.int64]
    attended: Floats
    pairs: Floats
    windowed: list[tuple[Floats, Floats]]
    longest: Floats | None = None

    def within(self, places: Sequence[int]) -> VerifyLoad:
        """The same with the windows at `places` alone."""
        return self._replace(windowed=[self.windowed[place] for place in places])

    def one_row_each(self, more: int, tokens: int, windowed: Sequence[int]) -> VerifyLoad:
        """One row of each sequence, and of `more` others that attend `tokens`, `windowed` inside each window."""
        seqs, attended = self.seqs + more, self.attended + tokens
        inside = [seen + others for (seen, _), others in zip(self.windowed, windowed, strict=True)]
        rows = np.full(len(attended), seqs, dtype=np.int64)
        return VerifyLoad(seqs, rows, attended, attended, [(seen, seen) for seen in inside], self.longest)


def no_load(windows: int) -> VerifyLoad:
    """One step without such sequences."""
    none = np.zeros(1)
    return VerifyLoad(0, np.zeros(1, dtype=np.int64), none, none, [(none, none)] * windows)
