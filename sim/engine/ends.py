"""When the steps of a stride end: the sums of what they take, found as they are asked for."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import numpy as np

from sim.cost.layer import Floats

FEW: Final = 64
"""Steps up to which numbers of Python's are summed sooner than an array is handed to numpy."""
_accumulate: Final = np.add.accumulate


class Ends:
    """The ends of two steps or more, s; each is the one before it plus the seconds of the step, in this order.

    Few and many steps have the same bits. Abstract, but no ABC: classes that are compiled may not derive from one.
    """

    def at(self, step: int) -> float:
        """End of the step after `step` others."""
        raise NotImplementedError

    def begun(self, now: float) -> int:
        """Steps that have begun by `now`, the one in progress included."""
        raise NotImplementedError

    def postpone(self, step: int, seconds: float) -> None:
        """Let the step after `step` others, whose end was asked for, end later, and with it those after it."""
        raise NotImplementedError

    def cut(self, steps: int) -> None:
        """Keep the first `steps` steps, whose ends were asked for."""
        raise NotImplementedError

    def values(self) -> list[float] | Floats:
        """All of them."""
        raise NotImplementedError


def ends_of(start: float, seconds: Floats) -> Ends:
    """Of steps that take `seconds`, float64[steps], the first of which begins at `start`."""
    return FewEnds(start, seconds) if len(seconds) <= FEW else ManyEnds(start, seconds)


class FewEnds(Ends):
    """In lists."""

    __slots__ = ("_ends", "_seconds")

    def __init__(self, start: float, seconds: Floats) -> None:
        self._seconds: list[float] = seconds.tolist()
        self._ends: list[float] = [start + self._seconds[0]]
        """As far as they are known."""

    def at(self, step: int) -> float:
        ends = self._ends
        known = len(ends)
        if step == known:
            ends.append(ends[step - 1] + self._seconds[step])
        elif step > known:
            self._sum_up()
        return ends[step]

    def begun(self, now: float) -> int:
        if self._ends[-1] < now:
            self._sum_up()
        return min(bisect_left(self._ends, now) + 1, len(self._seconds))

    def postpone(self, step: int, seconds: float) -> None:
        ends = self._ends
        ends[step] += seconds
        del ends[step + 1 :]

    def cut(self, steps: int) -> None:
        del self._ends[steps:]
        del self._seconds[steps:]

    def values(self) -> list[float] | Floats:
        if len(self._ends) < len(self._seconds):
            self._sum_up()
        return self._ends

    def _sum_up(self) -> None:
        ends = self._ends
        end = ends[-1]
        for seconds in self._seconds[len(ends) :]:
            end += seconds
            ends.append(end)


class ManyEnds(Ends):
    """In an array, whose first `_summed` numbers are ends; the others are still what steps take."""

    __slots__ = ("_ends", "_seconds", "_summed")

    def __init__(self, start: float, seconds: Floats) -> None:
        self._seconds = seconds
        self._ends = seconds.copy()
        self._ends[0] = start + seconds.item(0)
        self._summed = 1

    def at(self, step: int) -> float:
        ends, summed = self._ends, self._summed
        if step > summed:
            self._sum_up()
        elif step == summed:
            ends[step] = ends.item(step - 1) + ends.item(step)
            self._summed = summed + 1
        end: float = ends.item(step)
        return end

    def begun(self, now: float) -> int:
        ends, steps = self._ends, len(self._ends)
        if self._summed < steps:
            if ends.item(self._summed - 1) < now:
                self._sum_up()
            else:
                ends = ends[: self._summed]
        return min(int(ends.searchsorted(now)) + 1, steps)

    def postpone(self, step: int, seconds: float) -> None:
        ends = self._ends
        ends[step] = ends.item(step) + seconds
        if self._summed > step + 1:
            ends[step + 1 :] = self._seconds[step + 1 : len(ends)]
            self._summed = step + 1

    def cut(self, steps: int) -> None:
        self._ends = self._ends[:steps]
        self._summed = min(self._summed, steps)

    def values(self) -> list[float] | Floats:
        if self._summed < len(self._ends):
            self._sum_up()
        return self._ends

    def _sum_up(self) -> None:
        rest = self._ends[self._summed - 1 :]
        _accumulate(rest, 0, None, rest)
        self._summed = len(self._ends)
