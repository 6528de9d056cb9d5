"""The latent process of page relevance, fitted to ArkVale's page recalls.

For one request and layer, page i has the score s_i(t) = mu_i + x_i(t) + e_i(t) at decode step t:

    mu_i ~ N(0, spread)      how much the page matters throughout
    x_i                      Ornstein-Uhlenbeck, variance 1, time constant tau steps: what the text is about by now
    e_i ~ jitter t(3)/sqrt(3)  of each step alone; heavy tails keep large caches from never missing

The first page (sink) and the last two (window) are always selected. SOURCE: fitted to ArkVale (NeurIPS'24) Fig. 4b,
as docs/importance.md says; the figure does not tell the three settings apart, so all three are offered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]

PINNED = 3
"""Pages that are always selected: the sink and a window of two."""
PINNED_SCORE = 1e6
"""Above every score that is drawn."""
PAGE_TOKENS = 32
"""Tokens of a page that the process was fitted to."""
STEPS = 200
"""Decode steps after the prompt that statistics are means over, as in the fit."""


@dataclass(frozen=True)
class Setting:
    """tau (steps), jitter (sigma of e before the division by sqrt 3), spread (sigma of mu), and what it is for."""

    tau: float
    jitter: float
    spread: float
    about: str


SETTINGS: dict[str, Setting] = {
    "recommended": Setting(364, 0.17, 0.70, "best where recalls are worth counting"),
    "best_log": Setting(230, 0.40, 2.40, "least logarithmic error"),
    "slow": Setting(1301, 0.36, 1.93, "slowest drift that fits as well"),
}
"""Of a random search (docs/importance.md); `recommended` is the default."""


def page_scores(setting: Setting, pages: int, draws: np.random.Generator, *, steps: int, layers: int) -> Scores:
    """Scores [steps, layers, pages] of independent layers; the first step is the state that the prompt leaves.

    Draws uniform numbers only. SOURCE: normals by Box and Muller (1958), t(3) by Bailey (Math. Comp. 62, 1994).
    """
    static = setting.spread * _normals(draws, layers * pages)
    drift = _normals(draws, layers * pages)
    keep = math.exp(-1 / setting.tau)
    fresh = math.sqrt(1 - keep * keep)
    scores = np.empty((steps, layers, pages), dtype=np.float32)
    for step in range(steps):
        drift = keep * drift + fresh * _normals(draws, layers * pages)
        jitter = setting.jitter / math.sqrt(3) * _student3(draws, layers * pages)
        scores[step] = (static + drift + jitter).reshape(layers, pages)
    for pin in {0, max(pages - 2, 0), pages - 1}:
        scores[:, :, pin] = PINNED_SCORE
    return scores


def _normals(draws: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    half = (count + 1) // 2
    radius = np.sqrt(-2 * np.log1p(-draws.random(half)))
    angle = 2 * math.pi * draws.random(half)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def _student3(draws: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Student's t with 3 degrees of freedom: sqrt(3 (u^(-2/3) - 1)) cos(2 pi v)."""
    radius = np.sqrt(3 * ((1 - draws.random(count)) ** (-2 / 3) - 1))
    return np.asarray(radius * np.cos(2 * math.pi * draws.random(count)))
