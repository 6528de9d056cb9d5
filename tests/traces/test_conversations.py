"""Turns of a conversation by order of arrival, against a plain loop."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traces.conversations import by_session


def test_turns_follow_each_other_in_time():
    sessions, arrival = np.array([3, 0, 3, -1, 3, -1]), np.array([5.0, 1.0, 2.0, 0.0, 9.0, 4.0])
    links = by_session(sessions, arrival, np.array([7.5, 2.0, 4.0, 1.0, 9.5, 5.0]))
    assert links.turns.tolist() == [1, 0, 0, -1, 2, -1]
    assert links.after.tolist() == [2, -1, -1, -1, 0, -1]
    assert links.delay_s[[0, 4]].tolist() == [1.0, 1.5]
    assert np.isnan(links.delay_s[[1, 2, 3, 5]]).all()


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 5), st.integers(0, 3) | st.none()), max_size=30))
def test_against_a_plain_loop(rows):
    sessions, arrival = np.array([r[0] for r in rows], int), np.array([r[1] for r in rows], float)
    ended = np.array([math.nan if r[2] is None else r[1] + r[2] for r in rows], float)
    links = by_session(sessions, arrival, ended)
    last, count = {}, {}
    for i in sorted(range(len(rows)), key=lambda i: (rows[i][1], i)):
        session = rows[i][0]
        before = last.get(session, -1) if session >= 0 else -1
        assert links.after[i] == before
        assert links.turns[i] == (count.get(session, 0) if session >= 0 else -1)
        if before < 0 or math.isnan(ended[before]):
            assert math.isnan(links.delay_s[i])
        else:
            assert links.delay_s[i] == max(0.0, arrival[i] - ended[before])
        last[session], count[session] = i, count.get(session, 0) + 1
    assert np.isnan(by_session(sessions, arrival).delay_s).all()
