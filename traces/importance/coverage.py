"""Attention mass that the best pages hold: softmax(beta s) over the scores of the page process.

beta is such that ten pages hold 99 % of a context of 550 pages, the longest that the process was fitted to. An
assumption, after ArkVale Fig. 3 (`facts.MASS`). The sink and the window, which are always selected,
count as much as the best page beside them: their own mass is not part of the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from traces.importance.pages import PINNED, SETTINGS, page_scores
from traces.random import stream

KEPT = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024, 4096, 16384)
PAGES = tuple(2**power for power in range(3, 16))
PATH = Path(__file__).with_name("coverage.npz")
SEED, LAYERS = 8, 2**20
HELD, BEST, CONTEXT = 0.99, 10, 550
"""What beta is fitted to."""
LEAST = 1e-9
"""Mass outside the best pages below which nothing is told apart."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """missed[kept, pages]: mean mass outside the best `kept` of a context of `pages`; LEAST where nothing is left."""

    missed: Floats

    def of(self, kept: float, pages: float) -> float:
        """Mass of the best `kept` of `pages`, linear within the first page."""
        if kept >= pages:
            return 1.0
        if pages < PAGES[0]:
            kept, pages = kept * PAGES[0] / pages, PAGES[0]
        if kept < 1:
            return max(kept, 0.0) * self.of(1, pages)
        places = np.log(PAGES)
        where = min(math.log(pages), places[-1])
        below = max(int(np.searchsorted(places, where)) - 1, 0)
        part = (where - places[below]) / (places[below + 1] - places[below])
        ends = [self._logarithm(kept, pages, column) for column in (below, below + 1)]
        return 1 - math.exp(ends[0] * (1 - part) + ends[1] * part)

    def _logarithm(self, kept: float, pages: float, column: int) -> float:
        """Of the mass missed in a context of the grid; nothing is missed where all of `pages` are kept."""
        rows = [row for row, count in enumerate(KEPT) if count < min(pages, PAGES[column])]
        xs = [*(math.log(KEPT[row]) for row in rows), math.log(pages)]
        ys = [*(math.log(self.missed[row, column]) for row in rows), math.log(LEAST)]
        return float(np.interp(math.log(kept), xs, ys))


def make_coverage(name: str, *, pages: tuple[int, ...] = PAGES) -> Floats:
    """Simulate a setting: [kept, pages]."""
    beta = beta_of(name)
    missed = np.full((len(KEPT), len(pages)), LEAST)
    for column, count in enumerate(pages):
        held = _held(_ranked(name, count), beta)
        for row, kept in enumerate(KEPT):
            if kept < count:
                missed[row, column] = max(1 - float(held[:, kept - 1].mean()), LEAST)
    return np.maximum.accumulate(missed, axis=1)  # a longer context leaves no less outside: what falls is noise


def beta_of(name: str) -> float:
    """beta of a setting, by bisection."""
    ranked = _ranked(name, CONTEXT)
    low, high = 0.1, 50.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        enough = float(_held(ranked, middle)[:, BEST - 1].mean()) > HELD
        low, high = (low, middle) if enough else (middle, high)
    return high


def _ranked(name: str, pages: int) -> Floats:
    """Scores of independent layers, best first, the pinned ones as high as the best other."""
    layers = max(LAYERS // pages, 64)
    draws = stream(SEED, f"importance.coverage.{name}", pages)
    scores = page_scores(SETTINGS[name], pages, draws, steps=1, layers=layers)[0].astype(np.float64)
    scores = -np.sort(-scores, axis=1)
    scores[:, :PINNED] = scores[:, PINNED : PINNED + 1]
    return scores


def _held(ranked: Floats, beta: float) -> Floats:
    """Mass of the best 1, 2, ... pages."""
    weights = np.exp(beta * (ranked - ranked[:, :1]))
    return np.asarray(np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True))


@cache
def shipped(name: str) -> Coverage:
    """The shipped table of a setting."""
    with np.load(PATH) as file:
        return Coverage(file[name].astype(np.float64))
