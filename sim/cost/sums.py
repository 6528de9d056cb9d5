"""Sums of lines over the decoding sequences of a step, from the sums that the engine keeps of their terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hw_profiles.lines import Line
from sim.cost.stage import STEPS, Attended
from sim.cost.times import Seconds


@dataclass(frozen=True)
class Terms:
    """The sums that are kept beside the number of sequences and of their tokens, in this order.

    windows  of min(context, window), one for each window
    prompts  of min(prompt, limit), one for each limit; None: of the prompt as it is
    """

    windows: tuple[int, ...] = ()
    prompts: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, windows: Iterable[int], lines: Iterable[Line]) -> Terms:
        """Those that lines need, beside the windows of the model."""
        limits, prompts = set(windows), set[int]()
        plain = False
        for line in lines:
            limits.update(w for w, _ in line.caps)
            prompts.update(w for w, _ in line.prompt_caps)
            plain = plain or bool(line.prompt)
        return cls(tuple(sorted(limits)), (*((None,) if plain else ()), *sorted(prompts)))

    def alike(self, seqs: float, context: float, prompt: float) -> list[Attended]:
        """The sums of `seqs` sequences that all have the same context and prompt."""
        grown = [Attended(seqs * min(context, w), seqs if context < w else 0) for w in self.windows]
        fixed = [Attended(seqs * (prompt if w is None else min(prompt, w)), 0) for w in self.prompts]
        return grown + fixed


class Summed:
    """The sum of a line over sequences, now and in each of the steps that follow; the same bits either way."""

    __slots__ = ("_base", "_places", "_slope", "flat", "zero")

    def __init__(self, line: Line, terms: Terms) -> None:
        self._base, self._slope = line.base, line.slope
        windows, offset = terms.windows, len(terms.windows)
        self._places = [(windows.index(w), amount) for w, amount in line.caps]
        if line.prompt:
            self._places.append((offset + terms.prompts.index(None), line.prompt))
        self._places += [(offset + terms.prompts.index(w), amount) for w, amount in line.prompt_caps]
        self.zero = line.zero
        self.flat = not (line.slope or line.caps)
        """It does not grow with the context."""

    def now(self, seqs: float, context: float, sums: Sequence[Attended]) -> float:
        """In the next step."""
        value = self._base * seqs + self._slope * context
        for place, amount in self._places:
            value = value + amount * sums[place].tokens
        return value

    def along(self, seqs: float, context: float, sums: Sequence[Attended], steps: int) -> Seconds:
        """In each of the next `steps` steps: float64[steps], or one number where all are alike."""
        if steps == 1 or self.flat:
            return self.now(seqs, context, sums)
        ahead = STEPS[:steps]
        value = self._base * seqs + self._slope * (context + seqs * ahead)
        for place, amount in self._places:
            now, growing = sums[place]
            value = value + amount * (now + growing * ahead)
        return value

    def total(self, seqs: float, context: float, sums: Sequence[Attended], steps: int) -> float:
        """Over the next `steps` steps together."""
        grown = self._slope * seqs
        for place, amount in self._places:
            grown += amount * sums[place].growing
        return self.now(seqs, context, sums) * steps + grown * (steps * (steps - 1) / 2)


class Moved(NamedTuple):
    """Bytes of all GPUs of a replica that steps moved over the host links, toward the GPUs and away from them."""

    h2d: float
    d2h: float


NOT_MOVED = Moved(0.0, 0.0)
