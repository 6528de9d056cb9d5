"""Time bins, percentiles and down-sampling: everything a figure needs from long columns, vectorised.

Bins are even, left-closed, in simulated seconds. Totals are kept: what is spread over the bins sums to
what went in.
"""

import math
from dataclasses import dataclass

import numpy as np

from reports.load import Floats, Ints

MIN_BINS, MAX_BINS = 24, 120


@dataclass(frozen=True)
class TimeBins:
    """`count` bins of `width` seconds from `start` (s)."""

    start: float
    width: float
    count: int

    @property
    def end(self) -> float:
        """Right edge of the last bin (s)."""
        return self.start + self.width * self.count

    @property
    def centres(self) -> Floats:
        """Float64[count]: the middle of every bin (s)."""
        return np.asarray(self.start + self.width * (np.arange(self.count) + 0.5), dtype=np.float64)

    def index(self, times: Floats) -> Ints:
        """Int64[n]: the bin of every time (s); times outside go to the first or last bin."""
        raw = np.floor((times - self.start) / self.width)
        return np.asarray(np.clip(np.nan_to_num(raw), 0, self.count - 1), dtype=np.int64)


def time_bins(start_s: float, end_s: float, events: int) -> TimeBins:
    """Even bins that cover [start_s, end_s] exactly, so no bin is cut short and looks like a dip.

    As many as `events` (requests, say) can fill with twenty each, between MIN_BINS and MAX_BINS.
    """
    number = max(MIN_BINS, min(MAX_BINS, events // 20))
    return TimeBins(start_s, max(end_s - start_s, 1e-6) / number, number)


def count(bins: TimeBins, times: Floats, weights: Floats | None = None) -> Floats:
    """Float64[bins]: events (or the sum of `weights`) per bin; NaN times are left out."""
    ok = np.isfinite(times)
    w = None if weights is None else weights[ok]
    return np.bincount(bins.index(times[ok]), weights=w, minlength=bins.count).astype(np.float64)


def spread(bins: TimeBins, start: Floats, end: Floats, *amounts: Floats) -> list[Floats]:
    """Share each amount over the bins its interval [start, end] covers, in proportion to the overlap.

    Args: start, end: float64[n] seconds, end >= start; one of (next to) no length gives all to one bin.
    Returns one float64[bins] per amount. Interval ends are added exactly, full bins through a difference
    array, so the cost is O(n + bins) and no overlap matrix is built.
    """
    ok = np.isfinite(start) & np.isfinite(end)
    a, b = start[ok], np.maximum(end[ok], start[ok])
    i, j = bins.index(a), bins.index(b)
    length = b - a
    one = (i == j) | (length <= 1e-9 * bins.width)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        head = np.where(one, 1.0, (bins.start + (i + 1) * bins.width - a) / length)
        tail = np.where(one, 0.0, (b - (bins.start + j * bins.width)) / length)
        full = np.where(one, 0.0, bins.width / length)
    out = []
    for amount in amounts:
        x = amount[ok]
        total = np.bincount(i, weights=x * head, minlength=bins.count)
        total += np.bincount(j, weights=x * tail, minlength=bins.count)
        # Whole bins strictly between the two ends: +rate at i+1, -rate at j.
        rate = np.where(one, 0.0, x * full)
        steps = np.bincount(i + 1, weights=rate, minlength=bins.count + 1)
        steps -= np.bincount(np.where(one, i + 1, j), weights=rate, minlength=bins.count + 1)
        out.append(np.asarray(total + np.cumsum(steps)[: bins.count], dtype=np.float64))
    return out


def percentiles(bins: TimeBins, times: Floats, values: Floats, points: tuple[float, ...]) -> list[Floats]:
    """Nearest-rank percentiles per bin, NaN where a bin is empty: a float64[bins] per point in [0, 100]."""
    ok = np.isfinite(times) & np.isfinite(values)
    index, v = bins.index(times[ok]), values[ok]
    order = np.lexsort((v, index))
    v = v[order]
    n = np.bincount(index, minlength=bins.count)
    first = np.cumsum(n) - n
    out = []
    for p in points:
        rank = first + np.maximum(np.ceil(n * p / 100.0).astype(np.int64) - 1, 0)
        series = np.full(bins.count, np.nan)
        series[n > 0] = v[rank[n > 0]]
        out.append(series)
    return out


def cdf(values: Floats, points: int = 300) -> tuple[Floats, Floats]:
    """Down-sampled empirical distribution: values and the share of all values at or below each.

    Even in probability, with extra points in the upper tail so p99.9 stays exact. At most about 400 points.
    """
    v = np.sort(values[np.isfinite(values)])
    n = len(v)
    if n == 0:
        return v, v
    tail = 1.0 - np.logspace(-2, -5, 61)  # p99, p99.9, ... are among them
    rank = np.unique(
        np.concatenate(
            [
                np.linspace(0, n - 1, min(n, points)).round().astype(np.int64),
                np.clip(np.ceil(np.round(n * tail, 6)).astype(np.int64) - 1, 0, n - 1),
                [n - 1],
            ]
        )
    )
    return v[rank], (rank + 1.0) / n


def percentile(values: Floats, p: float) -> float:
    """Percentile `p` of the finite values, linear between ranks as numpy does; NaN when there are none."""
    v = values[np.isfinite(values)]
    return float(np.percentile(v, p)) if len(v) else math.nan
