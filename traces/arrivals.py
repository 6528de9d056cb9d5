"""Changes to when requests arrive: fewer of them, faster, spread, by session, or by a process of its own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hw_profiles.errors import InputError
from traces.random import stream
from traces.request import Floats, Trace

NO_TIMES = "the format has no arrival times; all requests arrive at 0 s unless arrival_rate is set"
"""Warning of a trace that `poisson_arrivals` answers."""


def limit(trace: Trace, n: int) -> Trace:
    """The first `n` requests (all, if the trace has fewer). Raises InputError below 1."""
    if n < 1:
        raise InputError("a trace needs at least one request", path="limit", found=n)
    return trace if n >= len(trace) else trace.select(np.arange(n))


def limit_sessions(trace: Trace, n: int) -> Trace:
    """The requests of the `n` conversations that begin first (all, if there are fewer).

    Requests of no conversation are left out. Raises InputError below 1, and for a trace without sessions.
    """
    if n < 1:
        raise InputError("a trace needs at least one conversation", path="sessions", found=n)
    if trace.session_ids is None:
        raise InputError("the trace does not tell sessions apart", where=trace.source, path="sessions")
    found, first = np.unique(trace.session_ids, return_index=True)
    first = first[found >= 0]
    if not len(first):
        raise InputError("no request belongs to a conversation", where=trace.source, path="sessions")
    kept = trace.session_ids[np.sort(first)[:n]]
    return trace.select(np.flatnonzero(np.isin(trace.session_ids, kept)))


def rate_scale(trace: Trace, factor: float) -> Trace:
    """Arrivals `factor` times as fast: gaps, think times and pauses of senders are divided by it, the first stays.

    Raises InputError.
    """
    if not 0 < factor < math.inf:
        raise InputError("", path="rate_scale", found=factor, allowed="a finite number above 0")
    if factor == 1:
        return trace
    first = trace.arrival_s[0]
    with np.errstate(over="ignore"):
        moved = first + (trace.arrival_s - first) / factor
    if not np.isfinite(moved).all():
        raise InputError("arrivals would leave the range of numbers", path="rate_scale", found=factor)
    sending = trace.sending
    if sending is not None and sending.rate is not None:
        sending = replace(sending, rate=sending.rate * factor)
    delay_s = None if trace.delay_s is None else trace.delay_s / factor
    return replace(trace, arrival_s=moved, delay_s=delay_s, sending=sending)


def spread_arrivals(trace: Trace, window_s: float, seed: int) -> Trace:
    """Moves every arrival from t to t + u * window_s (s), u uniform in [0, 1) and its own for each request.

    Undoes coarse timestamps (the Mooncake conversation trace counts in steps of 3 s, so that a dozen requests
    "arrive" at once). Request i takes the i-th number of the Philox stream "arrivals.spread" of `seed`, so
    its offset depends on nothing else: neither on the rate nor on how many requests follow. Turns of a conversation
    stay in their order: one that would come before the turn that it follows comes at the same time. The result is
    sorted (stable). Raises InputError for a negative or infinite window, and for a closed loop.
    """
    if not 0 <= window_s < math.inf:
        raise InputError("", path="spread_arrivals", found=window_s, allowed="a finite time of 0 s or more")
    if window_s == 0:
        return trace
    _refuse_closed(trace, "spread_arrivals")
    base = trace.arrival_s
    moved = base + stream(seed, "arrivals.spread").random(len(trace)) * window_s
    # rounding may reach the open end of [t, t + window); below one float step of t the window is empty
    moved = np.maximum(base, np.minimum(moved, np.nextafter(base + window_s, -math.inf)))
    trace = _after_theirs(trace, moved)
    order = np.argsort(moved, kind="stable")
    return trace.select(order, moved[order])


def _after_theirs(trace: Trace, moved: Floats) -> Trace:
    """Puts no request in `moved` (arrivals, s; changed here) before the one that it is after; delays follow."""
    if trace.after is None or trace.delay_s is None:
        return trace
    linked = np.flatnonzero(trace.after >= 0)
    before = trace.after[linked]
    while (late := moved[linked] < moved[before]).any():  # as often as a chain of them is long
        moved[linked[late]] = moved[before[late]]
    shift = moved - trace.arrival_s
    delay_s = trace.delay_s.copy()
    delay_s[linked] = np.maximum(delay_s[linked] + shift[linked] - shift[before], 0.0)
    return replace(trace, delay_s=delay_s)


def stagger_sessions(trace: Trace, window_s: float, seed: int) -> Trace:
    """Moves every session as a whole by u * window_s (s), u uniform in [0, 1) and its own for each session.

    For traces whose sessions all begin at once, as in the kv-cache-tester format. Session s takes the s-th number
    of the Philox stream "arrivals.stagger" of `seed`; gaps within a session stay. The result is sorted (stable).
    Requests of no session stay. Raises InputError for a negative or infinite window, for a trace without sessions, and
    for a closed loop.
    """
    if not 0 <= window_s < math.inf:
        raise InputError("", path="stagger_sessions", found=window_s, allowed="a finite time of 0 s or more")
    if window_s == 0:
        return trace
    _refuse_closed(trace, "stagger_sessions")
    if trace.session_ids is None:
        raise InputError("the trace does not tell sessions apart", where=trace.source, path="stagger_sessions")
    offsets = stream(seed, "arrivals.stagger").random(int(trace.session_ids.max()) + 1) * window_s
    offsets = np.append(offsets, 0.0)  # of session -1
    moved = trace.arrival_s + offsets[trace.session_ids]
    order = np.argsort(moved, kind="stable")
    return trace.select(order, moved[order])


def poisson_arrivals(trace: Trace, rate_per_s: float, seed: int) -> Trace:
    """The same requests in the same order as a Poisson process of `rate_per_s` (requests/s) from 0 s on.

    For lists of lengths without times. Gap i is the i-th exponential number, by inversion, of the Philox stream
    "arrivals.poisson" of `seed`. How long a turn waited after the one before is no longer known, and a warning that
    there are no times is void. Raises InputError for a rate that is not a finite number above 0, and for a closed loop.
    """
    if not 0 < rate_per_s < math.inf:
        raise InputError("", path="arrival_rate", found=rate_per_s, allowed="a finite number of requests/s above 0")
    _refuse_closed(trace, "arrival_rate")
    gaps = -np.log1p(-stream(seed, "arrivals.poisson").random(len(trace)))
    with np.errstate(over="ignore"):
        moved = np.cumsum(gaps) / rate_per_s
    if not np.isfinite(moved).all():
        raise InputError("arrivals would leave the range of numbers", path="arrival_rate", found=rate_per_s)
    delay_s = None if trace.delay_s is None else np.full(len(trace), np.nan)
    warnings = tuple(warning for warning in trace.warnings if not warning.endswith(NO_TIMES))
    return replace(trace, arrival_s=moved, delay_s=delay_s, warnings=warnings)


def _refuse_closed(trace: Trace, option: str) -> None:
    if trace.closed_loop:
        text = "arrivals in a closed loop follow from the run, so they cannot be moved"
        raise InputError(text, where=trace.source, path=option)
