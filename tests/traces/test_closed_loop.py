"""Recorded conversations as a closed loop: waits, starts, and that only waits for earlier requests come out."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from traces.arrivals import limit, limit_sessions, poisson_arrivals, rate_scale, spread_arrivals, stagger_sessions
from traces.closed_loop import ClosedLoopSpec, close_loop
from traces.conversations import by_session
from traces.generate import GenerateSpec, generate
from traces.request import Trace
from traces.spec import TraceSpec, build


def recorded(rows):
    """A trace of (session, arrival, end) rows, any order; output_tokens number the rows from 1."""
    rows = sorted(rows, key=lambda row: row[1])
    sessions, arrival = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], float)
    n = len(rows)
    return Trace(
        name="recorded",
        block_tokens=0,
        arrival_s=arrival,
        input_tokens=np.full(n, 10),
        output_tokens=np.arange(1, n + 1),
        hash_ids=np.zeros(0, int),
        hash_offsets=np.zeros(n + 1, int),
        content_sha256="",
        source="recorded",
        session_ids=sessions,
        **by_session(sessions, arrival, np.array([r[2] for r in rows], float))._asdict(),
    ).validate()


ROWS = [(0, 0.0, 1.0), (0, 5.0, 7.0), (0, 9.0, 9.5), (1, 2.0, 3.0), (1, 3.5, 4.0), (2, 20.0, 21.0)]


def closed(trace, seed=0, **options):
    return close_loop(trace, ClosedLoopSpec.model_validate(options), seed)


def rows(trace):
    return [(r.session, r.turn, float(trace.arrival_s[r.index]), int(trace.after[r.index])) for r in trace]


def test_waits_are_kept_and_arrivals_are_the_earliest():
    trace = closed(recorded(ROWS))
    assert rows(trace) == [
        (0, 0, 0.0, -1),
        (1, 0, 2.0, -1),
        (1, 1, 2.5, 1),
        (0, 1, 4.0, 0),
        (0, 2, 6.0, 3),
        (2, 0, 20.0, -1),
    ]
    assert trace.delay_s[trace.after >= 0].tolist() == [0.5, 4.0, 2.0]
    assert [r.think_s for r in trace] == [4.0, 0.5, None, 2.0, None, None]
    assert trace.closed_loop
    assert trace.max_parallel is None
    assert closed(recorded(ROWS), max_parallel=3).max_parallel == 3


def test_clients_hold_one_conversation_after_the_other():
    trace = closed(recorded(ROWS), clients=1)
    assert [(r.session, r.turn) for r in trace] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]
    assert trace.after.tolist() == [-1, 0, 1, 2, 3, 4]
    assert trace.delay_s[1:].tolist() == [4.0, 2.0, 0.0, 0.5, 0.0]
    assert [r.think_s for r in trace] == [4.0, 2.0, None, 0.5, None, None]  # a new conversation is no next turn
    two = closed(recorded(ROWS), clients=2)
    begins = {
        int(two.session_ids[i]): int(two.session_ids[two.after[i]])
        for i in range(6)
        if two.turns[i] == 0 and two.after[i] >= 0
    }
    assert begins == {2: 0}  # the third conversation is the first client's again
    assert closed(recorded(ROWS), clients=3).after.tolist() == closed(recorded(ROWS)).after.tolist()


def test_waits_can_be_capped_and_replaced():
    capped = closed(recorded(ROWS), max_think="1 s")
    assert {(r.session, r.turn): r.think_s for r in capped if r.think_s} == {(0, 0): 1.0, (0, 1): 1.0, (1, 0): 0.5}
    always = closed(recorded(ROWS), think_time="3 s")
    assert set(always.delay_s[always.after >= 0].tolist()) == {3.0}
    drawn = [closed(recorded(ROWS), seed, think_time={"mean": "3 s"}) for seed in (0, 0, 1)]
    of = [{(r.session, r.turn): r.think_s for r in trace} for trace in drawn]
    assert of[0] == of[1] != of[2]
    fewer = closed(limit_sessions(recorded(ROWS), 1), think_time={"mean": "3 s"})
    assert {(r.session, r.turn): r.think_s for r in fewer}.items() <= of[0].items()


def test_conversations_as_a_poisson_process():
    many = recorded([(k, 0.0, 1.0) for k in range(4000)] + [(k, 3.0, 4.0) for k in range(4000)])
    trace = closed(many, session_rate=2.0)
    begins = trace.arrival_s[trace.turns == 0]
    gaps = np.diff(begins)
    assert gaps.mean() == pytest.approx(0.5, rel=5 / 4000**0.5)
    assert gaps.std() == pytest.approx(0.5, rel=0.1)
    assert (trace.delay_s[trace.turns == 1] == 2.0).all()
    assert trace.session_ids[trace.turns == 0].tolist() == list(range(4000))


def test_unknown_waits_need_a_think_time():
    trace = recorded([(0, 0.0, np.nan), (0, 5.0, 6.0), (0, 9.0, 10.0)])
    with pytest.raises(
        InputError, match=r"recorded: closed_loop: .* how long 1 request\(s\) waited .*closed_loop.think_time"
    ):
        closed(trace)
    assert closed(trace, think_time="1 s").arrival_s.tolist() == [0.0, 1.0, 2.0]


def test_a_trace_without_conversations_and_a_closed_one_are_refused():
    with pytest.raises(InputError, match="closed_loop: the trace does not tell conversations apart"):
        closed(replace(recorded(ROWS), after=None, delay_s=None))
    with pytest.raises(InputError, match="closed_loop: is one already"):
        closed(closed(recorded(ROWS)))


def test_closed_arrivals_cannot_be_moved_but_scaled_and_cut():
    trace = closed(recorded(ROWS))
    for change in (spread_arrivals, stagger_sessions, poisson_arrivals):
        with pytest.raises(InputError, match="arrivals in a closed loop follow from the run"):
            change(trace, 3.0, 0)
    assert spread_arrivals(trace, 0, 0) is trace
    fast = rate_scale(trace, 2).validate()
    assert fast.arrival_s.tolist() == (trace.arrival_s / 2).tolist()
    assert fast.delay_s[trace.after >= 0].tolist() == [0.25, 2.0, 1.0]
    short = limit(trace, 3).validate()
    assert short.closed_loop
    assert [r.think_s for r in short] == [None, 0.5, None]  # the next turn of the first is cut off


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(0, 4)), min_size=1, max_size=30),
    st.none() | st.integers(1, 4),
    st.none() | st.sampled_from(["0 s", "1 s", "3 s"]),
)
def test_everything_is_sent_once_and_waits_for_something_earlier(made, clients, cap):
    before = recorded([(session, at, at + served) for session, at, served in made])
    after = closed(before, clients=clients, max_think=cap)  # which validates
    assert sorted(after.output_tokens.tolist()) == sorted(before.output_tokens.tolist())
    waits = after.after >= 0
    reached = after.arrival_s[after.after[waits]] + after.delay_s[waits]
    assert after.arrival_s[waits].tolist() == reached.tolist()
    sessions = len(set(before.session_ids.tolist()))
    assert int((~waits).sum()) == (sessions if clients is None else min(clients, sessions))


def test_generated_chat_in_a_closed_loop():
    spec = {"generate": {"requests": 200, "rate": 2.0, "turns": 3.0, "think_time": "40 s"}}
    opened = build(TraceSpec.model_validate(spec), 1)
    trace = build(TraceSpec.model_validate({**spec, "closed_loop": True}), 1)
    assert list(opened) == list(generate(GenerateSpec.model_validate(spec["generate"]), 1))
    assert trace.closed_loop
    # a gap of the open trace is the wait of the closed one, so that the earliest arrivals are the open ones
    assert trace.arrival_s == pytest.approx(opened.arrival_s)
    assert [r.think_s for r in trace] == [r.think_s for r in opened]
    assert int((trace.after >= 0).sum()) > 50
    written = TraceSpec.model_validate({**spec, "closed_loop": True}).model_dump(mode="json", exclude_none=True)
    again = TraceSpec.model_validate(json.loads(json.dumps(written)))
    assert again.closed_loop == ClosedLoopSpec()
    assert TraceSpec.model_validate({**spec, "closed_loop": False}).closed_loop is None
