"""Recalls of the page process by selected pages, cached pages and pages of the context: the shipped table.

`python -m traces.importance.make_table` makes it. Between its points, recalls per selected page are taken as a function
of the shares cached / selected and context / cached: all three sizes scaled alike, the same share is recalled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from traces.importance.pages import PINNED, SETTINGS, STEPS, page_scores
from traces.importance.replay import recalls
from traces.random import stream

SELECTED = (4, 6, 8, 12, 16, 24, 32, 40, 64, 96, 128, 160)
CACHED = (4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
PAGES = (*(2**power * part // 2 for power in range(3, 15) for part in (2, 3)), 2**15)
"""Pages of the context, 8 to 32768: a million tokens in pages of 32."""
PATH = Path(__file__).with_name("recalls.npz")
SEED = 8
SMALLEST = 1e-5
"""Recalls per layer and step below which nothing is told apart: one in 500 answers of 200 tokens."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Recalls per layer and step of one setting: values[selected, cached, pages], NaN where a cache cannot be."""

    values: Floats

    def reaches(self, selected: int, cached: int) -> bool:
        """Whether the grid has such sizes."""
        low = max(selected, SELECTED[0])
        return low <= SELECTED[-1] and cached / low * SELECTED[_between(SELECTED, low)[1]] <= CACHED[-1]

    def recalls(self, selected: int, cached: int, pages: float) -> float:
        """Recalls per layer and step of sizes that the grid `reaches`; longer contexts count as its longest."""
        if cached >= pages or selected <= PINNED:
            return 0.0
        low, high, part = _between(SELECTED, selected)
        shares = [self._at(row, cached / selected, pages / selected) / SELECTED[row] for row in (low, high)]
        return selected * _log_mean(shares[0], shares[1], part)

    def _at(self, row: int, cached: float, pages: float) -> float:
        """For selected pages of the grid; the other two sizes as multiples of them."""
        selected = SELECTED[row]
        low, high, part = _between(CACHED, max(cached * selected, selected))
        ends = [self._line(row, column, pages / cached) for column in (low, high)]
        return _log_mean(ends[0], ends[1], part)

    def _line(self, row: int, column: int, ratio: float) -> float:
        """For a cache of the grid; the context as a multiple of it. Linear in the logarithm, from none at 1."""
        start = CACHED[column]
        known = [(start, 0.0)]
        known += [(n, v) for n, v in zip(PAGES, self.values[row, column], strict=True) if n > start]
        xs, ys = zip(*known, strict=True)
        return float(np.interp(math.log(start * ratio), np.log(xs), ys))


def make_grid(name: str, *, pages: tuple[int, ...] = PAGES) -> Floats:
    """Simulate a setting: [selected, cached, pages]. The layers of a context draw from a stream of its own."""
    out = np.full((len(SELECTED), len(CACHED), len(pages)), np.nan)
    for place, count in enumerate(pages):
        out[:, :, place] = _of_context(name, count)
    return out


def layers_for(pages: int) -> int:
    """Independent layers to simulate: more of short contexts, which vary more and cost less."""
    return max(24, min(96, 2**15 // pages))


def _of_context(name: str, pages: int) -> Floats:
    """[selected, cached], layers in batches that fit in memory."""
    draws = stream(SEED, f"importance.{name}", pages)
    total = np.zeros((len(SELECTED), len(CACHED)))
    left = layers_for(pages)
    while left:
        layers = min(left, max(PAGES[-1] * 4 // pages, 1))
        scores = page_scores(SETTINGS[name], pages, draws, steps=STEPS, layers=layers)
        for row, selected in enumerate(SELECTED):
            columns = [i for i, size in enumerate(CACHED) if selected <= size < pages]
            total[row, columns] += np.array(recalls(scores, selected, [CACHED[i] for i in columns])) * layers
        left -= layers
    possible = np.array([[selected <= size < pages for size in CACHED] for selected in SELECTED])
    return np.where(possible, total / layers_for(pages), np.nan)


@cache
def shipped(name: str) -> Grid:
    """The shipped grid of a setting."""
    with np.load(PATH) as file:
        return Grid(file[name].astype(np.float64))


def _between(grid: tuple[int, ...], value: float) -> tuple[int, int, float]:
    """The places below and above `value`, and how far it is between them by logarithm; the ends hold beyond."""
    high = min(max(int(np.searchsorted(grid, value)), 1), len(grid) - 1)
    low, span = high - 1, math.log(grid[high] / grid[high - 1])
    part = math.log(value / grid[low]) / span
    return low, high, min(max(part, 0.0), 1.0)


def _log_mean(low: float, high: float, part: float) -> float:
    """Between two amounts, by logarithm: recalls span four decades."""
    if part in {0.0, 1.0}:
        return high if part else low
    ends = math.log(max(low, SMALLEST)), math.log(max(high, SMALLEST))
    mean = math.exp(ends[0] + part * (ends[1] - ends[0]))
    return mean if mean > 1.001 * SMALLEST else 0.0
