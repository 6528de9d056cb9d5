"""Relevance of single tokens, in closed form: it changes far faster than that of pages, so nothing of them is reused.

A token's score is sqrt(w) r + sqrt(1 - w) x(t): r is constant and alike in neighbouring tokens (correlation
exp(-distance / 128), assumed), x is an autoregression of time constant tau steps, each of variance 1. The best share q
of the context is selected at every step. Then

    selected again a step later:  P(both above z) / q for normals of correlation w + (1 - w) exp(-1/tau)
    hits of a block cache:        what the blocks with the highest means of r hold of the selected tokens

w was fitted to PQCache's hit ratio, tau to the fraction of newly selected tokens in arXiv 2603.13430 (`facts`).
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from hw_profiles.lines import CONTEXT, NOTHING, Line
from traces.importance.curves import above, density, through

KEYS_AT = ((0, 0.0), (500, 80.0), (1000, 146.0), (1500, 160.0), (2000, 164.0))
"""(query position, keys that hold 0.9 of attention). SOURCE: InfiniGen (OSDI'24), `facts.KEYS`."""
TAIL = math.log(2) / math.log(320 / 164)
"""Of 1 - exp(-(keys / scale)^TAIL), the mass of the best keys: 0.9 in 164 and 0.99 in 320 (ArkVale Fig. 3)."""
SHARE = 0.1
"""Selected share of the context. SOURCE: PQCache, run_mistral.sh: compress_ratio 0.2, important_ratio 0.5."""
REGION = 128.0
"""Tokens over which the constant part is alike. Assumed."""
STEADY = 0.34045
"""w. Fitted: hit_ratio(4096, 1600, 128) = 0.6 (`facts.HITS`)."""
TAU = 1.4968
"""Steps. Fitted: new_fraction(1600, 16000) = 0.55 (`facts.FRESH`)."""
LAYERS = 0.5562
"""Correlation of the scores of neighbouring layers. Fitted: layer_overlap(1600, 16000) = 0.36 (`facts.LAYERS`)."""
GUESS = 0.8652
"""Correlation of a layer's scores with the guess of them. Assumed: guessed(164, 400, 2000) = 0.9 (`facts.GUESS`)."""

_NORMAL = NormalDist()


def keys_for(mass: float) -> Line:
    """Tokens that hold `mass` of the attention: a line in the context, never above it."""
    if mass <= 0:
        return NOTHING
    if mass >= 1:
        return CONTEXT
    factor = (-math.log1p(-mass) / math.log(10)) ** (1 / TAIL)
    points = [(float(n), factor * keys) for n, keys in KEYS_AT]
    return through(_under_context(points))


def hit_ratio(cached_tokens: int, selected_tokens: int, block_tokens: int, context: float | None = None) -> float:
    """Share of selected tokens that are in a cache of the blocks most often selected (LFU once it is warm).

    `context` tokens, by default 10 for each selected one, as in PQCache. Only whole blocks are cached. Of no selected
    tokens none is missed.
    """
    if selected_tokens <= 0:
        return 1.0
    tokens = context or selected_tokens / SHARE
    cached = min(cached_tokens // block_tokens * block_tokens / tokens, 1.0)
    share = min(selected_tokens / tokens, 1.0)
    if cached in {0.0, 1.0} or share in {0.0, 1.0}:
        return cached
    steady = STEADY * _alike(block_tokens)
    means = np.linspace(-8, 8, 1601)
    bound = _NORMAL.inv_cdf(1 - share)
    chosen = above((bound - math.sqrt(steady) * means) / math.sqrt(1 - steady)) * density(means)
    sums = np.cumsum(chosen[::-1])  # of the blocks down to each mean, best first
    edge = _NORMAL.inv_cdf(1 - cached)
    return float(np.interp(-edge, -means[::-1], sums) / sums[-1])


def new_fraction(selected_tokens: float, context: float) -> float:
    """Share of the selected tokens that were not selected a step before."""
    again = STEADY + (1 - STEADY) * math.exp(-1 / TAU)
    return 1 - _found(selected_tokens / context, selected_tokens / context, again)


def layer_overlap(selected_tokens: float, context: float) -> float:
    """Share of the tokens that a layer selects that the layer before selects too, at the same step."""
    return _found(selected_tokens / context, selected_tokens / context, LAYERS)


def guessed(needed_tokens: float, fetched_tokens: float, context: float) -> float:
    """Share of the tokens that a layer needs among those fetched on a guess made a layer earlier (InfiniGen)."""
    return _found(needed_tokens / context, fetched_tokens / context, GUESS)


def _found(wanted: float, taken: float, correlation: float) -> float:
    """P(in the best `taken` of one score | in the best `wanted` of another), normal scores of this correlation."""
    if not 0 < wanted < 1 or not 0 < taken < 1:
        return min(max(taken, 0.0), 1.0)
    common, rest = np.linspace(-8, 8, 1601), math.sqrt(1 - correlation)
    shares = [above((_NORMAL.inv_cdf(1 - share) - math.sqrt(correlation) * common) / rest) for share in (wanted, taken)]
    weight = density(common)
    return float((shares[0] * shares[1] * weight).sum() / (shares[0] * weight).sum())


def _alike(tokens: float) -> float:
    """Variance of the mean of `tokens` neighbours whose correlation is exp(-distance / REGION)."""
    blocks = tokens / REGION
    return 2 * (blocks - 1 + math.exp(-blocks)) / blocks**2


def _under_context(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """min(points, context) for a concave curve from 0."""
    kept = [points[0]]
    for (n0, k0), (n1, k1) in pairwise(points):
        if k0 >= n0 and k1 < n1:  # they cross on the way
            cross = float(int(n0 + (n1 - n0) * (k0 - n0) / ((k0 - n0) + (n1 - k1))))  # a whole token
            kept.append((cross, cross))
        kept.append((n1, min(k1, n1)))
    end, last = points[-1]
    return kept if last <= end else [*kept, (last, last)]
