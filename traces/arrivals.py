"""Changes to when requests arrive: fewer of them, faster, or spread within a coarse timestamp."""

from __future__ import annotations

import math

import numpy as np

from hw_profiles.errors import InputError
from traces.random import stream
from traces.request import Trace


def limit(trace: Trace, n: int) -> Trace:
    """The first `n` requests (all, if the trace has fewer). Raises InputError below 1."""
    if n < 1:
        raise InputError("a trace needs at least one request", path="limit", found=n)
    return trace if n >= len(trace) else trace.select(np.arange(n))


def rate_scale(trace: Trace, factor: float) -> Trace:
    """Arrivals `factor` times as fast: gaps are divided by it, the first arrival stays. Raises InputError."""
    if not 0 < factor < math.inf:
        raise InputError("", path="rate_scale", found=factor, allowed="a finite number above 0")
    if factor == 1:
        return trace
    first = trace.arrival_s[0]
    with np.errstate(over="ignore"):
        moved = first + (trace.arrival_s - first) / factor
    if not np.isfinite(moved).all():
        raise InputError("arrivals would leave the range of numbers", path="rate_scale", found=factor)
    return trace.select(np.arange(len(trace)), moved)


def spread_arrivals(trace: Trace, window_s: float, seed: int) -> Trace:
    """Moves every arrival from t to t + u * window_s (s), u uniform in [0, 1) and its own for each request.

    Undoes coarse timestamps (the Mooncake conversation trace counts in steps of 3 s, so that a dozen requests
    "arrive" at once). Request i takes the i-th number of the Philox stream "arrivals.spread" of `seed`, so
    its offset depends on nothing else: neither on the rate nor on how many requests follow. The result is
    sorted (stable). Raises InputError for a negative or infinite window.
    """
    if not 0 <= window_s < math.inf:
        raise InputError("", path="spread_arrivals", found=window_s, allowed="a finite time of 0 s or more")
    if window_s == 0:
        return trace
    base = trace.arrival_s
    moved = base + stream(seed, "arrivals.spread").random(len(trace)) * window_s
    # rounding may reach the open end of [t, t + window); below one float step of t the window is empty
    moved = np.maximum(base, np.minimum(moved, np.nextafter(base + window_s, -math.inf)))
    order = np.argsort(moved, kind="stable")
    return trace.select(order, moved[order])
