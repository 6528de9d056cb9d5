from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from traces.arrivals import limit, limit_sessions, poisson_arrivals, rate_scale, spread_arrivals, stagger_sessions
from traces.conversations import by_session
from traces.random import stream
from traces.request import Trace


def bare(arrivals):
    """A trace that says nothing about prefixes; output_tokens number the requests from 1."""
    n = len(arrivals)
    return Trace(
        name="bare",
        block_tokens=0,
        arrival_s=np.array(arrivals, float),
        input_tokens=np.full(n, 10),
        output_tokens=np.arange(1, n + 1),
        hash_ids=np.zeros(0, int),
        hash_offsets=np.zeros(n + 1, int),
        content_sha256="",
        source="bare",
    ).validate()


times = st.lists(st.floats(0, 1e9), min_size=1, max_size=40).map(sorted)
windows = st.sampled_from([1e-12, 1e-3, 1.0, 3.0, 1e6])


@given(times, windows, st.integers(0, 2**32))
def test_spread_keeps_every_request_in_its_window(arrivals, window, seed):
    before = bare(arrivals)
    after = spread_arrivals(before, window, seed).validate()  # ascending, among others
    assert sorted(after.output_tokens.tolist()) == before.output_tokens.tolist()  # nobody lost
    for request in after:
        t = arrivals[request.output_tokens - 1]
        # half open, except where the window is narrower than one float step at t
        assert t <= request.arrival_s < t + window or t + window == t == request.arrival_s


def test_spread_really_spreads_and_evenly():
    after = spread_arrivals(bare([30.0] * 3000), 3.0, 0)
    assert len(set(after.arrival_s.tolist())) == 3000
    counts = np.histogram(after.arrival_s, 10, (30.0, 33.0))[0]
    assert abs(counts - 300).max() < 5 * 300**0.5  # 5 sigma


def test_spread_is_the_same_for_the_same_seed_and_not_for_another():
    trace = bare([0.0, 0.0, 3.0])
    assert spread_arrivals(trace, 3, 1).arrival_s.tolist() == spread_arrivals(trace, 3, 1).arrival_s.tolist()
    assert spread_arrivals(trace, 3, 1).arrival_s.tolist() != spread_arrivals(trace, 3, 2).arrival_s.tolist()


def offsets(after, before):
    """{request number: how far it moved}"""
    start = dict(zip(before.output_tokens.tolist(), before.arrival_s.tolist(), strict=True))
    return {r.output_tokens: r.arrival_s - start[r.output_tokens] for r in after}


def test_the_offset_of_a_request_depends_neither_on_the_rate_nor_on_other_requests():
    trace = bare(np.repeat(np.arange(0, 300, 3.0), 5))
    base = offsets(spread_arrivals(trace, 3.0, 9), trace)
    faster = rate_scale(trace, 4)
    assert offsets(spread_arrivals(faster, 3.0, 9), faster) == pytest.approx(base, abs=1e-9)
    shorter = limit(trace, 7)
    some = offsets(spread_arrivals(shorter, 3.0, 9), shorter)
    assert some == pytest.approx({k: base[k] for k in some}, abs=1e-9)
    stream(9, "something.else").random(1000)  # whatever else is drawn with the same seed
    assert offsets(spread_arrivals(trace, 3.0, 9), trace) == base


def test_no_window_changes_nothing():
    trace = bare([0.0, 1.0])
    assert spread_arrivals(trace, 0, 1) is trace


@given(times, st.floats(1e-3, 1e3))
def test_rate_scale_divides_the_span_and_keeps_the_first(arrivals, factor):
    before = bare(arrivals)
    after = rate_scale(before, factor).validate()
    assert after.arrival_s[0] == before.arrival_s[0]
    span = before.arrival_s[-1] - before.arrival_s[0]
    assert after.arrival_s[-1] - after.arrival_s[0] == pytest.approx(span / factor, rel=1e-9, abs=1e-6)
    assert after.output_tokens.tolist() == before.output_tokens.tolist()


def test_rate_scale_of_two_halves_the_span():
    assert rate_scale(bare([10.0, 12.0, 16.0]), 2).arrival_s.tolist() == [10.0, 11.0, 13.0]


def test_limit_keeps_the_first(make_trace):
    trace = make_trace([(0.0, 600, 5, [1, 2]), (1.0, 512, 1, [1]), (2.0, 1, 7, [9])])
    cut = limit(trace, 2).validate()
    assert [r.hash_ids for r in cut] == [[1, 2], [1]]
    assert limit(trace, 3) is trace
    assert limit(trace, 10) is trace


@pytest.mark.parametrize(
    ("change", "value"),
    [(rate_scale, v) for v in (0, -1, float("nan"), float("inf"), 1e-320)]
    + [(lambda t, v: spread_arrivals(t, v, 0), v) for v in (-1, float("nan"), float("inf"))]
    + [(limit, v) for v in (0, -5)],
)
def test_senseless_numbers_are_refused(change, value):
    with pytest.raises(InputError, match="found"):
        change(bare([0.0, 1.0]), value)


def sessions(make_trace, n=40, per=3):
    rows = [(float(t), 600, 1 + s, [s, 100 + t]) for t in range(per) for s in range(n)]
    trace = make_trace(rows)
    return replace(trace, session_ids=np.tile(np.arange(n), per))


def test_sessions_are_staggered_as_a_whole(make_trace):
    trace = sessions(make_trace)
    moved = stagger_sessions(trace, 100.0, seed=3).validate()
    starts = []
    for s in range(40):
        own = moved.arrival_s[moved.session_ids == s]
        np.testing.assert_allclose(np.diff(own), [1.0, 1.0])
        assert set(moved.output_tokens[moved.session_ids == s].tolist()) == {1 + s}
        starts.append(own[0])
    assert 0 <= min(starts) < 20 < 80 < max(starts) < 100
    assert len(set(starts)) == 40
    np.testing.assert_array_equal(stagger_sessions(trace, 100.0, seed=3).arrival_s, moved.arrival_s)
    assert not np.array_equal(stagger_sessions(trace, 100.0, seed=4).arrival_s, moved.arrival_s)
    assert stagger_sessions(trace, 0.0, seed=3) is trace


def test_a_session_starts_at_the_same_time_whatever_the_others(make_trace):
    many, few = (stagger_sessions(sessions(make_trace, n), 50.0, 1) for n in (40, 5))
    for s in range(5):
        assert many.arrival_s[many.session_ids == s].tolist() == few.arrival_s[few.session_ids == s].tolist()


def test_staggering_needs_sessions_and_a_window(make_trace):
    trace = make_trace([(0.0, 600, 5, [1, 2])])
    with pytest.raises(InputError, match=r"made\.jsonl: stagger_sessions: the trace does not tell sessions apart"):
        stagger_sessions(trace, 1.0, 0)
    for window in (-1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="stagger_sessions: found"):
            stagger_sessions(sessions(make_trace), window, 0)


def test_poisson_arrivals(make_trace):
    trace = make_trace([(0.0, 600, 1 + i % 7, [1, 2 + i]) for i in range(4000)])
    moved = poisson_arrivals(trace, 8.0, seed=5).validate()
    gaps = np.diff(moved.arrival_s, prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / 8, rel=0.05)  # 3 standard errors of the mean
    assert gaps.std() == pytest.approx(1 / 8, rel=0.1)
    assert moved.output_tokens.tolist() == trace.output_tokens.tolist()
    np.testing.assert_allclose(poisson_arrivals(trace, 16.0, seed=5).arrival_s, moved.arrival_s / 2)
    assert not np.array_equal(poisson_arrivals(trace, 8.0, seed=6).arrival_s, moved.arrival_s)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan"), 1e-320])
def test_a_rate_that_is_none(make_trace, rate):
    with pytest.raises(InputError, match="arrival_rate"):
        poisson_arrivals(make_trace([(0.0, 600, 5, [1, 2])] * 50), rate, 0)


def test_scaling_the_rate_scales_think_times():
    trace = rate_scale(talk([0.0, 4.0, 10.0], [0, 0, 0]), 2).validate()
    assert trace.arrival_s.tolist() == [0.0, 2.0, 5.0]
    assert trace.delay_s[1:].tolist() == [1.5, 2.5]


def talk(arrivals, sessions):
    """Requests that end 1 s after their arrival, in `sessions`."""
    trace, sessions = bare(arrivals), np.array(sessions)
    links = by_session(sessions, trace.arrival_s, trace.arrival_s + 1)
    return replace(trace, session_ids=sessions, **links._asdict()).validate()


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(-1, 2)), min_size=1, max_size=25), st.integers(0, 99))
def test_spreading_keeps_the_turns_of_a_conversation_in_order(rows, seed):
    rows.sort()
    before = talk([r[0] for r in rows], [r[1] for r in rows])
    after = spread_arrivals(before, 3.0, seed).validate()
    assert int((after.after >= 0).sum()) == int((before.after >= 0).sum())
    moved = dict(zip(after.output_tokens.tolist(), after.arrival_s.tolist(), strict=True))
    for i in np.flatnonzero(after.after >= 0).tolist():
        j = int(after.after[i])
        assert after.turns[i] == after.turns[j] + 1
        assert after.arrival_s[i] >= after.arrival_s[j]
    for request in before:
        assert before.arrival_s[request.index] <= moved[request.output_tokens] <= before.arrival_s[request.index] + 3.0


def test_a_wait_follows_its_two_ends():
    before = talk([0.0, 100.0], [0, 0])
    after = spread_arrivals(before, 3.0, 1)
    shift = after.arrival_s - before.arrival_s
    assert after.delay_s[1] == pytest.approx(99.0 + shift[1] - shift[0])
    assert shift[0] != shift[1]


def test_a_poisson_process_knows_no_waits():
    after = poisson_arrivals(talk([0.0, 4.0, 5.0], [0, 0, 1]), 2.0, 0).validate()
    assert after.turns.tolist() == [0, 1, 0]
    assert after.after.tolist() == [-1, 0, -1]
    assert np.isnan(after.delay_s).all()


def test_staggering_leaves_waits_and_requests_of_no_conversation():
    before = talk([0.0, 1.0, 2.0, 9.0], [0, -1, 0, 1])
    after = stagger_sessions(before, 50.0, 3).validate()
    assert after.arrival_s[after.session_ids == -1].tolist() == [1.0]
    own = after.arrival_s[after.session_ids == 0]
    assert own[1] - own[0] == pytest.approx(2.0)
    assert sorted(after.delay_s[after.after >= 0].tolist()) == [1.0]


def test_the_first_conversations():
    trace = talk([0.0, 1.0, 2.0, 3.0, 4.0], [7, -1, 2, 7, 5])
    assert limit_sessions(trace, 2).validate().output_tokens.tolist() == [1, 3, 4]
    assert limit_sessions(trace, 9).output_tokens.tolist() == [1, 3, 4, 5]
    with pytest.raises(InputError, match="sessions: a trace needs at least one conversation"):
        limit_sessions(trace, 0)
    with pytest.raises(InputError, match="sessions: the trace does not tell sessions apart"):
        limit_sessions(bare([0.0]), 1)
    with pytest.raises(InputError, match="no request belongs to a conversation"):
        limit_sessions(talk([0.0], [-1]), 1)
