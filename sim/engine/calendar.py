"""Sums over sequences for each of the steps to come."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Calendar:
    """Whole numbers by step: what is known of a sequence's steps when it joins is added for all of them at once, so a
    step asks nobody. `columns` numbers per step; steps are counted from the first of the replica."""

    def __init__(self, columns: int) -> None:
        self._first = 0
        """The step that `_sums` begins with."""
        self._sums = np.zeros((columns, 1024), dtype=np.int64)

    def add(self, step: int, numbers: Ints) -> None:
        """Add `numbers`, int64[columns, n], to the steps from `step` on; a step that is not over."""
        start, count = step - self._first, numbers.shape[1]
        if start + count > self._sums.shape[1]:
            self._make_room(step, start + count)
            start = step - self._first
        self._sums[:, start : start + count] += numbers

    def take(self, step: int, numbers: Ints) -> None:
        """Take away what was added."""
        start = step - self._first
        self._sums[:, start : start + numbers.shape[1]] -= numbers

    def ahead(self, step: int, steps: int) -> Ints:
        """The sums of `steps` steps from `step` on: int64[columns, n], fewer if all that follow are 0."""
        start = step - self._first
        return self._sums[:, start : start + steps]

    def _make_room(self, step: int, needed: int) -> None:
        """Forget the steps before `step`, and have room for twice what is needed."""
        gone = step - self._first
        rest = self._sums[:, gone:]
        size = max(self._sums.shape[1], 2 * (needed - gone))
        self._sums = np.zeros((rest.shape[0], max(size, rest.shape[1])), dtype=np.int64)
        self._sums[:, : rest.shape[1]] = rest
        self._first = step
