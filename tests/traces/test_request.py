from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.errors import InputError

ROWS = [(0.0, 600, 5, [1, 2]), (1.5, 512, 1, [1]), (1.5, 1, 7, [9])]


def test_rows_come_back_as_plain_numbers(make_trace):
    trace = make_trace(ROWS).validate()
    assert len(trace) == 3
    request = trace.request(1)
    assert (request.index, request.arrival_s, request.input_tokens, request.output_tokens) == (1, 1.5, 512, 1)
    assert request.hash_ids == [1]
    assert {type(request.arrival_s), type(request.input_tokens), type(request.hash_ids[0])} == {float, int}
    assert [r.hash_ids for r in trace] == [[1, 2], [1], [9]]


@pytest.mark.parametrize("index", [-1, 3])
def test_a_row_outside_is_refused(make_trace, index):
    with pytest.raises(IndexError, match="trace of 3"):
        make_trace(ROWS).request(index)


def test_columns_cannot_be_changed_in_place(make_trace):
    trace = make_trace(ROWS)
    with pytest.raises(ValueError, match="read-only"):
        trace.input_tokens[0] = 1


def test_the_callers_array_stays_writable(make_trace):
    arrivals = np.array([0.0, 1.0, 2.0])
    trace = replace(make_trace(ROWS), arrival_s=arrivals)
    arrivals[0] = -1.0  # no error: only the trace's view is locked
    assert not trace.arrival_s.flags.writeable


def test_select_keeps_each_request_with_its_ids(make_trace):
    chosen = make_trace(ROWS).select(np.array([2, 0]), np.array([3.0, 4.0])).validate()
    assert [(r.arrival_s, r.input_tokens, r.hash_ids) for r in chosen] == [(3.0, 1, [9]), (4.0, 600, [1, 2])]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no request"),
        ([(0.0, 10, 1, [1]), (-1.0, 10, 1, [1])], "request 1: arrival_s must be finite and >= 0"),
        ([(0.0, 10, 1, [1]), (np.nan, 10, 1, [1])], "request 1: arrival_s must be finite"),
        ([(2.0, 10, 1, [1]), (1.0, 10, 1, [1])], "request 1: arrivals must ascend"),
        ([(0.0, 0, 1, [])], "request 0: input_tokens"),
        ([(0.0, 10, 0, [1])], "request 0: output_tokens"),
        ([(0.0, 10, 1, [1]), (0.0, 513, 1, [1])], "request 1: hash ids must number input_tokens / 512"),
    ],
)
def test_broken_rules_name_the_request(make_trace, rows, words):
    with pytest.raises(InputError, match=words) as caught:
        make_trace(rows).validate()
    assert str(caught.value).startswith("made.jsonl: ")


def test_without_prefix_information_there_are_no_ids(make_trace):
    make_trace([(0.0, 10, 1, [])], block_tokens=0).validate()
    with pytest.raises(InputError, match="hash ids"):
        make_trace([(0.0, 10, 1, [4])], block_tokens=0).validate()


def test_columns_of_different_length_are_refused(make_trace):
    trace = make_trace(ROWS)
    with pytest.raises(InputError, match="differ in length"):
        replace(trace, output_tokens=trace.output_tokens[:2]).validate()
    with pytest.raises(InputError, match="do not span"):
        replace(trace, hash_ids=trace.hash_ids[:2]).validate()


def test_sessions_follow_their_requests(make_trace):
    trace = replace(make_trace(ROWS), session_ids=np.array([4, 0, 4])).validate()
    assert trace.select(np.array([1, 2])).session_ids.tolist() == [0, 4]
    assert make_trace(ROWS).select(np.array([1, 2])).session_ids is None
    with pytest.raises(ValueError, match="read-only"):
        trace.session_ids[0] = 1
    with pytest.raises(InputError, match="session_ids differ in length"):
        replace(trace, session_ids=np.array([4, 0])).validate()


def talking(make_trace, **changes):
    """Two conversations: requests 0, 1, 3 and request 2; request 3 waited 4 s."""
    rows = [(0.0, 9, 1, [1]), (2.0, 9, 1, [1]), (2.0, 9, 1, [2]), (7.0, 9, 1, [1])]
    columns = {
        "session_ids": np.array([5, 5, 6, 5]),
        "turns": np.array([0, 1, 0, 2]),
        "after": np.array([-1, 0, -1, 1]),
        "delay_s": np.array([np.nan, 1.5, np.nan, 4.0]),
    }
    return replace(make_trace(rows), **(columns | changes))


def test_a_request_knows_its_conversation(make_trace):
    first, second, other, third = talking(make_trace).validate()
    assert [(r.session, r.turn, r.think_s) for r in (first, second, third)] == [(5, 0, 1.5), (5, 1, 4.0), (5, 2, None)]
    assert (other.session, other.turn, other.think_s) == (6, 0, None)
    assert first.keys == first.hash_ids == [1]
    plain = make_trace(ROWS).request(0)
    assert (plain.session, plain.turn, plain.think_s) == (-1, -1, None)


def test_unknown_waits_and_starts_of_other_conversations_are_no_think_times(make_trace):
    trace = talking(make_trace, delay_s=np.array([np.nan, np.nan, np.nan, 4.0])).validate()
    assert np.isnan(trace.think_s).tolist() == [True, False, True, True]
    # request 2 waits for the end of request 1, but is the first turn of another conversation
    waits = {"after": np.array([-1, 0, 1, 1]), "delay_s": np.array([np.nan, 1.5, 9.0, 4.0])}
    assert talking(make_trace, **waits).validate().request(1).think_s == 4.0
    unknown = talking(make_trace, turns=np.full(4, -1)).validate()
    assert np.isnan(unknown.think_s).all()
    with pytest.raises(ValueError, match="read-only"):
        trace.think_s[0] = 1.0


def test_select_keeps_who_waits_for_whom(make_trace):
    trace = talking(make_trace)
    assert [(r.turn, r.think_s) for r in trace.select(np.array([0, 1, 3]))] == [(0, 1.5), (1, 4.0), (2, None)]
    moved = trace.select(np.array([2, 0, 1, 3]), np.array([0.0, 1.0, 2.0, 7.0])).validate()
    assert moved.after.tolist() == [-1, -1, 1, 2]
    cut = trace.select(np.array([1, 3])).validate()  # what request 1 waited for is left out
    assert cut.after.tolist() == [-1, 0]
    assert np.isnan(cut.delay_s[0])
    assert cut.delay_s[1] == 4.0
    turned = trace.select(np.array([3, 0, 1]), np.array([0.0, 0.0, 2.0])).validate()  # nobody waits for the future
    assert turned.after.tolist() == [-1, -1, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"turns": np.array([0])}, "turns differ in length"),
        ({"after": None}, "after and delay_s come together"),
        ({"after": None, "delay_s": None, "closed_loop": True}, "a closed loop needs them"),
        ({"after": np.array([-1, 1, -1, 1])}, "request 1: after must be an earlier request"),
        ({"after": np.array([-1, 0, -1, -2])}, "request 3: after must be an earlier request"),
        ({"delay_s": np.array([np.nan, -1.0, np.nan, 4.0])}, "request 1: delay_s must be >= 0"),
        ({"delay_s": np.array([np.nan, np.inf, np.nan, 4.0])}, "request 1: delay_s must be >= 0"),
        ({"delay_s": np.array([1.0, 1.0, np.nan, 4.0])}, "request 0: delay_s must be >= 0 or NaN"),
        ({"delay_s": np.array([np.nan, 1.0, np.nan, np.nan]), "closed_loop": True}, "request 3: a closed loop needs"),
    ],
)
def test_broken_links_name_the_request(make_trace, changes, words):
    with pytest.raises(InputError, match=words):
        talking(make_trace, **changes).validate()
