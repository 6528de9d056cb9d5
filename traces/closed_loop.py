"""Replaying recorded conversations in a closed loop: the next turn waits for the end of the turn before it.

Recorded arrivals have the recorded system's speed in them: a slower system would still be sent the next turn before it
has answered, and a faster one would idle. In a closed loop only the start of a conversation is given.
SOURCE: callanjfox/kv-cache-tester, docs/trace_replay_tester.md (timing strategy "think-only", --max-delay, --recycle,
--max-concurrent-requests); Yu et al., "Stateful Large Language Model Serving with Pensieve" (EuroSys'25), evaluation
(conversations arrive as a Poisson process, turns an exponential think time after the answer).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from hw_profiles.errors import InputError
from hw_profiles.units import Seconds
from traces.draws import Times
from traces.random import stream
from traces.request import Floats, Ints, Trace
from traces.sending import Many, SenderSpec


class ClosedLoopSpec(SenderSpec):
    """How recorded conversations are replayed in a closed loop; `closed_loop: true` is this with nothing set.

    think_time    from the end of a turn to the next one, in place of what the trace says
    max_think     no wait after an end is longer
    clients       conversations at a time: each client holds one after the other, and the next begins when the last
                  request of the one before has ended; conversation k is client k mod `clients`'. Not given: each begins
                  as recorded
    session_rate  conversations begin as a Poisson process of this rate (1/s), in the recorded order
    max_parallel, ready_queue, request_rate, request_gaps   how what is ready is sent (traces.sending)
    """

    think_time: Times | None = None
    max_think: Seconds | None = None
    clients: Many | None = None
    session_rate: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_start(self) -> ClosedLoopSpec:
        if self.clients is not None and self.session_rate is not None:
            raise InputError("clients begin a conversation when they are free, so it excludes session_rate")
        return self


def close_loop(trace: Trace, spec: ClosedLoopSpec, seed: int) -> Trace:
    """`trace` as a closed loop, in order of the earliest possible arrivals.

    Waits come from `Trace.delay_s`. Those after a turn are replaced by `think_time`, drawn from the Philox stream
    "closed_loop.think" of `seed` and the session; those of a sub-agent that a request starts stay as recorded.
    Raises InputError for a trace that does not tell who waits for whom, or not for how long.
    """
    if trace.closed_loop:
        raise InputError("is one already", where=trace.source, path="closed_loop")
    if trace.after is None or trace.delay_s is None or trace.session_ids is None or trace.turns is None:
        text = "the trace does not tell conversations apart, so nothing says whose end a request waits for"
        raise InputError(text, where=trace.source, path="closed_loop")
    delay_s = _delays(trace, trace.after, trace.session_ids, trace.turns, trace.delay_s, spec, seed)
    rank, begin_s = _starts(trace, trace.session_ids, spec, seed)
    after, delay_s, arrival_s = _schedule(trace, rank, begin_s, trace.after, delay_s, spec.clients)
    order = np.lexsort((np.arange(len(trace)), rank, arrival_s))  # of two at one time, the later session comes later
    closed = replace(trace, after=np.full(len(trace), -1), delay_s=np.full(len(trace), np.nan)).select(order)
    place = np.empty(len(trace) + 1, np.int64)
    place[order], place[-1] = np.arange(len(trace)), -1
    return replace(
        closed,
        arrival_s=arrival_s[order],
        after=place[after[order]],
        delay_s=delay_s[order],
        closed_loop=True,
        max_parallel=spec.max_parallel,
        sending=spec.sending(seed),
    ).validate()


def _delays(
    trace: Trace, after: Ints, sessions: Ints, turns: Ints, recorded: Floats, spec: ClosedLoopSpec, seed: int
) -> Floats:
    """float64[n]: the wait of every request with `after`, s."""
    delay_s = recorded.copy()
    linked = after >= 0
    if spec.think_time is not None:
        next_turn = np.flatnonzero(linked & (turns == turns[after] + 1))
        for session in np.unique(sessions[next_turn]).tolist():
            own = next_turn[sessions[next_turn] == session]
            draws = stream(seed, "closed_loop.think", session).random(len(own)).tolist()
            delay_s[own] = [spec.think_time.at(u) for u in draws]
    unknown = int((linked & np.isnan(delay_s)).sum())
    if unknown:
        text = f"the trace does not tell how long {unknown} request(s) waited after the end of the one before; "
        raise InputError(text + "give closed_loop.think_time", where=trace.source, path="closed_loop")
    return delay_s if spec.max_think is None else np.minimum(delay_s, spec.max_think)


def _starts(trace: Trace, sessions: Ints, spec: ClosedLoopSpec, seed: int) -> tuple[Ints, Floats]:
    """(rank int64[n], begin_s): the session of each request by order of first arrival, and when each begins, s.

    A request of no session is a session of its own.
    """
    n = len(trace)
    own = np.where(sessions < 0, sessions.max() + 1 + np.arange(n), sessions)
    _, first, back = np.unique(own, return_index=True, return_inverse=True)
    by_arrival = np.argsort(first, kind="stable")
    ranks = np.empty(len(first), np.int64)
    ranks[by_arrival] = np.arange(len(first))
    begin_s = trace.arrival_s[first[by_arrival]]
    if spec.session_rate is not None:
        gaps = -np.log1p(-stream(seed, "closed_loop.sessions").random(len(first)))
        begin_s = np.cumsum(gaps) / spec.session_rate
    return ranks[back.reshape(-1)], begin_s


def _schedule(
    trace: Trace, rank: Ints, begin_s: Floats, after: Ints, delay_s: Floats, clients: int | None
) -> tuple[Ints, Floats, Floats]:
    """(after, delay_s, arrival_s) with the sessions of a client in a row; arrivals as if all were served in no time."""
    after, delay_s, arrival_s = after.copy(), delay_s.copy(), np.empty(len(trace))
    members = np.split(np.lexsort((np.arange(len(trace)), rank)), np.cumsum(np.bincount(rank))[:-1])
    last = [-1] * len(members)  # of each session, the request that can arrive last
    for k, own in enumerate(members):
        recorded = float(trace.arrival_s[own[0]])
        before = last[k - clients] if clients is not None and k >= clients else -1
        begin = float(begin_s[k] if before < 0 else arrival_s[before])
        for i in own.tolist():
            if after[i] >= 0:
                arrival_s[i] = arrival_s[after[i]] + delay_s[i]
                continue
            offset = float(trace.arrival_s[i]) - recorded
            arrival_s[i] = begin + offset
            if before >= 0:
                after[i], delay_s[i] = before, offset
        last[k] = int(own[len(own) - 1 - int(np.argmax(arrival_s[own][::-1]))])
    return after, delay_s, arrival_s
