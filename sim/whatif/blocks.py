"""Blocks of time for a bootstrap of a queue: which requests belong together, and how long a block must be.

Requests of a queue are not independent: a backlog, a full cache or a conversation ties neighbours together. The run
is cut into windows of equal width, and whole blocks of windows are drawn. A block is at least as long as

- the correlation of the differences between windows asks for (`automatic_length`), and
- the longest busy period: the longest time over which some request of a replica always waited to be scheduled,
  because what went before decides what comes after for that long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_WINDOWS = 400
REQUESTS_PER_WINDOW = 8
MIN_BLOCKS = 8
"""Blocks that a run must be long enough for; with fewer there is no interval."""


def windows(arrival_s: Floats, sessions: Ints) -> tuple[Ints, int, float]:
    """(window of each request, number of windows, their width in s); a session is whole, in the window of its start.

    arrival_s: float64[n]; sessions: int64[n], -1 where there is none.
    """
    start, span = float(arrival_s.min()), float(np.ptp(arrival_s))
    count = int(min(MOST_WINDOWS, max(1, len(arrival_s) // REQUESTS_PER_WINDOW)))
    width = span / count if span > 0 else 1.0
    begins = arrival_s.copy()
    in_session = sessions >= 0
    if in_session.any():
        first = np.full(int(sessions.max()) + 1, np.inf)
        np.minimum.at(first, sessions[in_session], arrival_s[in_session])
        begins[in_session] = first[sessions[in_session]]
    return np.minimum(((begins - start) / width).astype(np.int64), count - 1), count, width


def busy_period_s(columns: Mapping[str, np.ndarray]) -> float:
    """Longest time (s) over which a replica always had a request waiting for its first step (0 without requests)."""
    longest = 0.0
    for replica in np.unique(columns["replica"]):
        mine = (columns["replica"] == replica) & ~np.isnan(columns["first_chunk_s"])
        begin, end = columns["arrival_s"][mine], columns["first_chunk_s"][mine]
        if not len(begin):
            continue
        order = np.argsort(begin, kind="stable")
        begin, end = begin[order], np.maximum.accumulate(end[order])
        starts = np.flatnonzero(np.concatenate(([True], begin[1:] > end[:-1])))
        ends = np.append(starts[1:], len(begin)) - 1
        longest = max(longest, float((end[ends] - begin[starts]).max()))
    return longest


def automatic_length(series: Floats) -> int:
    """Length of blocks for the mean of a series, from its autocorrelation: at least 1, at most len / MIN_BLOCKS.

    Politis and White, "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23 (2004) 53,
    with the constant of circular blocks: b = (2 G^2 / D)^(1/3) N^(1/3), D = 4/3 g(0)^2, over a flat-top lag window that
    ends at twice the lag after which autocorrelations stay below 2 sqrt(log10 N / N).
    """
    n = len(series)
    most = max(1, n // MIN_BLOCKS)
    centred = series - series.mean() if n else series
    variance = float(centred @ centred) / max(1, n)
    if n < 2 * MIN_BLOCKS or variance <= 1e-24 * float(np.max(np.abs(series)) ** 2):
        return 1
    lags = min(n - 1, math.ceil(math.sqrt(n)) + max(5, math.ceil(math.log10(n))))
    covariance = np.array([float(centred[: n - k] @ centred[k:]) / n for k in range(lags + 1)])
    small = np.abs(covariance[1:] / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)
    run = max(5, math.ceil(math.log10(n)))
    last = next((k for k in range(lags - run + 1) if small[k : k + run].all()), None)
    if last is None:
        last = int(np.flatnonzero(~small).max(initial=0)) + 1
    reach = min(2 * max(1, last), lags)
    lag = np.arange(-reach, reach + 1)
    weight = np.minimum(1.0, 2 * (1 - np.abs(lag) / reach))
    r = covariance[np.abs(lag)]
    g, spectrum = float((weight * np.abs(lag) * r).sum()), float((weight * r).sum())
    if spectrum <= 0:
        return most if g else 1
    length = (2 * g * g / (4 / 3 * spectrum * spectrum)) ** (1 / 3) * n ** (1 / 3)
    return int(min(most, max(1, math.ceil(length))))


def window_means(values: Floats, window: Ints, count: int) -> Floats:
    """Mean of `values` (NaN: none) by window; a window without any has the mean of all, so that it adds nothing."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(count)
    sums = np.bincount(window[known], values[known], count)
    counts = np.bincount(window[known], minlength=count)
    return np.where(counts > 0, sums / np.maximum(1, counts), values[known].mean())


def draws(count: int, length: int, many: int, rng: np.random.Generator) -> Ints:
    """int64[many, count]: how often each window is in each resample of circular blocks of `length` windows.

    Politis and Romano, "A circular block-resampling procedure for stationary data" (1992): blocks wrap around the end,
    so every window is drawn as often as any other on average.
    """
    blocks = -(-count // length)
    starts = rng.integers(0, count, size=(many, blocks))
    drawn = (starts[:, :, None] + np.arange(length)).reshape(many, -1)[:, :count] % count
    rows = np.arange(many)[:, None] * count
    return np.bincount((rows + drawn).ravel(), minlength=many * count).reshape(many, count)


def longest_length(series: Sequence[Floats]) -> int:
    """The longest of the automatic lengths of several series."""
    return max((automatic_length(one) for one in series), default=1)
