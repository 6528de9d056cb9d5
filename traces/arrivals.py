"""Changes to when requests arrive: fewer of them, faster, spread, by session, or by a process of its own."""

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


def stagger_sessions(trace: Trace, window_s: float, seed: int) -> Trace:
    """Moves every session as a whole by u * window_s (s), u uniform in [0, 1) and its own for each session.

    For traces whose sessions all begin at once, as in the kv-cache-tester format. Session s takes the s-th number
    of the Philox stream "arrivals.stagger" of `seed`; gaps within a session stay. The result is sorted (stable).
    Raises InputError for a negative or infinite window, and for a trace without sessions.
    """
    if not 0 <= window_s < math.inf:
        raise InputError("", path="stagger_sessions", found=window_s, allowed="a finite time of 0 s or more")
    if window_s == 0:
        return trace
    if trace.session_ids is None:
        raise InputError("the trace does not tell sessions apart", where=trace.source, path="stagger_sessions")
    offsets = stream(seed, "arrivals.stagger").random(int(trace.session_ids.max()) + 1) * window_s
    moved = trace.arrival_s + offsets[trace.session_ids]
    order = np.argsort(moved, kind="stable")
    return trace.select(order, moved[order])


def poisson_arrivals(trace: Trace, rate_per_s: float, seed: int) -> Trace:
    """The same requests in the same order as a Poisson process of `rate_per_s` (requests/s) from 0 s on.

    For lists of lengths without times. Gap i is the i-th exponential number, by inversion, of the Philox stream
    "arrivals.poisson" of `seed`. Raises InputError for a rate that is not a finite number above 0.
    """
    if not 0 < rate_per_s < math.inf:
        raise InputError("", path="arrival_rate", found=rate_per_s, allowed="a finite number of requests/s above 0")
    gaps = -np.log1p(-stream(seed, "arrivals.poisson").random(len(trace)))
    with np.errstate(over="ignore"):
        moved = np.cumsum(gaps) / rate_per_s
    if not np.isfinite(moved).all():
        raise InputError("arrivals would leave the range of numbers", path="arrival_rate", found=rate_per_s)
    return trace.select(np.arange(len(trace)), moved)
