"""Intervals of differences: from resamples of one pair of runs, and over the seeds of several pairs."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from sim.whatif.blocks import Floats

CONFIDENCE = 0.90
RESAMPLES = 1000


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else within 1 % for p in 0.9..0.995.

    The expansion in 1/df of Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.5.
    """
    if df <= 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    x = NormalDist().inv_cdf(p)
    g1 = (x**3 + x) / 4
    g2 = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    g4 = (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160
    return x + g1 / df + g2 / df**2 + g3 / df**3 + g4 / df**4


def percentile_interval(point: float, resamples: Floats, blocks: float) -> tuple[float, float] | None:
    """The interval of `point` whose resamples are given, made of `blocks` blocks each; None without enough of them.

    Percentiles of the resamples, their distance from the point widened as an estimate of a standard deviation from
    few blocks asks for: sqrt(n / (n - 1)) t(n - 1) / z.
    """
    known = resamples[~np.isnan(resamples)]
    if len(known) < len(resamples) / 2 or math.isnan(point):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(q) for q in np.quantile(known, [tail, 1 - tail]))
    if low == high != 0:
        return None  # a difference that no resample moves, such as one of the runs' lengths alone
    wider = math.sqrt(blocks / (blocks - 1)) * t_quantile(1 - tail, blocks - 1) / NormalDist().inv_cdf(1 - tail)
    return min(point, point + wider * (low - point)), max(point, point + wider * (high - point))


def seeds_interval(differences: Floats) -> tuple[float, float] | None:
    """Student's interval of the mean of paired differences, one for each seed.

    None for fewer than two, and for a difference that is the same with every seed: nothing then says how sure it is.
    """
    n = len(differences)
    if n < 2 or np.isnan(differences).any():
        return None
    if differences[0] != 0 and float(np.ptp(differences)) == 0:
        return None
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * float(differences.std(ddof=1)) / math.sqrt(n)
    mean = float(differences.mean())
    return mean - half, mean + half
