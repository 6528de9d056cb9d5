"""Conversations of coding agents: flattening, ids of their own per line, blocks that are full only."""

import json

import numpy as np
import pytest

from hw_profiles.errors import InputError
from traces.agentic import read_agentic
from traces.order import unchained
from traces.stats import ideal_hits


def one(t=0.0, tokens=10, out=2, ranges=((1, 2),), kind="n", **more):
    return {"t": t, "type": kind, "in": tokens, "out": out, "hash_ranges": [list(r) for r in ranges], **more}


def line(*requests, **changes):
    return json.dumps({"id": "x", "block_size": 4, "hash_id_scope": "local", "requests": list(requests), **changes})


def read(tmp_path, *lines, **options):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return read_agentic(path, **options).validate()


def test_a_conversation_becomes_requests(tmp_path):
    trace = read(
        tmp_path,
        line(one(0.0, 10, 2, [(1, 2)]), one(3.5, 16, 1, [(1, 2), (5, 6)], kind="s", think_time=1.0)),
        line(one(1.0, 8, 7, [(1, 2)])),
    )
    assert trace.arrival_s.tolist() == [0.0, 1.0, 3.5]
    assert trace.input_tokens.tolist() == [10, 8, 16]
    assert trace.output_tokens.tolist() == [2, 7, 1]
    assert trace.session_ids.tolist() == [0, 1, 0]
    assert (trace.name, trace.block_tokens, trace.warnings) == ("t", 4, ())
    first, other, second = (r.hash_ids for r in trace)
    assert (first[:2], second) == ([1, 2], [1, 2, 5, 6])
    assert len(first) == 3  # 10 tokens: two full blocks, and a partial one that nobody shares
    assert not set(other) & set(first + second)  # ids are local to their line
    assert first[2] not in second + other
    assert ideal_hits(trace).tolist() == [0, 0, 8]
    assert len(unchained(trace)) == 0


def test_partial_blocks_never_hit_even_when_a_prompt_repeats(tmp_path):
    trace = read(tmp_path, line(one(0.0, 10), one(1.0, 10)))
    assert ideal_hits(trace).tolist() == [0, 8]


def test_a_sub_agent_counts_time_from_its_own_start(tmp_path):
    inner = {"t": 2.0, "type": "subagent", "requests": [one(0.25, 4, 1, [(9, 9)])]}
    agent = {"t": 10.5, "type": "subagent", "agent_id": "a", "requests": [one(0.0, 8, 1, [(7, 8)]), inner]}
    trace = read(tmp_path, line(one(0.0), agent, one(11.0, 12, 1, [(1, 3)])))
    assert trace.arrival_s.tolist() == [0.0, 10.5, 11.0, 12.75]
    assert trace.input_tokens.tolist() == [10, 8, 12, 4]
    assert trace.session_ids.tolist() == [0, 0, 0, 0]


def test_requests_broken_off_are_dropped_with_one_warning(tmp_path):
    lines = (line(one()), line(one(1.0, out=0), one(2.0), one(3.0, out=0)))
    trace = read(tmp_path, *lines)
    assert trace.arrival_s.tolist() == [0.0, 2.0]
    assert trace.session_ids.tolist() == [0, 1]
    assert [w.split(": ", 1)[1] for w in trace.warnings] == [
        "2 request(s) without output, which were broken off; dropped"
    ]
    assert ":2: " in trace.warnings[0]
    with pytest.raises(InputError, match=r"t\.jsonl:2: a request without output"):
        read(tmp_path, *lines, strict=True)


@pytest.mark.parametrize(
    ("second", "good"),
    [
        ([(1, 2), (7, 7)], True),
        ([(1, 1), (2, 3)], True),  # the same chain in other pieces
        ([(2, 4)], False),  # block 2 first, after nothing
        ([(1, 1), (3, 4)], False),  # 3 after 1, in the first request after 2
        ([(5, 5), (2, 3)], False),  # 2 after another prefix
        ([(1, 2), (2, 2)], False),  # twice in one request
    ],
)
def test_ids_that_are_not_chained_warn_and_strict_refuses(tmp_path, second, good):
    lines = (line(one(0.0, 12, 1, [(1, 3)])), line(one(0.0, 12, 1, [(1, 3)]), one(1.0, 12, 1, second)))
    trace = read(tmp_path, *lines)
    assert (len(unchained(trace)) == 0) == good
    assert [":2: hash_ids: an id follows another prefix" in w for w in trace.warnings] == [True] * (not good)
    if not good:
        with pytest.raises(InputError, match=r"t\.jsonl:2: hash_ids: an id follows another"):
            read(tmp_path, *lines, strict=True)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (one(tokens=0), "requests[0].in: found 0, expected a whole number from 1"),
        (one(tokens=10.0), "requests[0].in: found 10.0"),
        (one(out=-1), "requests[0].out: found -1, expected a whole number from 0"),
        (one(out=None), "requests[0].out: found null"),
        (one(t=-0.5), "requests[0].t: found -0.5, expected seconds"),
        (one(t=float("nan")), "requests[0].t: found NaN"),
        (one(t="0"), 'requests[0].t: found "0"'),
        (one(kind="x"), 'requests[0].type: found "x", expected one of n, s, subagent'),
        (one(ranges=[(1, 3)]), "requests[0].hash_ranges: found 3 ids, expected 2 (10 tokens in full blocks of 4)"),
        (one(ranges=[]), "requests[0].hash_ranges: found 0 ids, expected 2"),
        (one(ranges=[(2, 1)]), "requests[0].hash_ranges: found [2, 1], expected [first, last]"),
        (one(ranges=[(1, 2, 3)]), "found [1, 2, 3]"),
        (one(ranges=[(-1, 0)]), "found [-1, 0]"),
        (one(ranges=[(1, 2.0)]), "found [1, 2.0]"),
        (one(ranges=[(2**40, 2**40 + 1)]), "expected [first, last]"),
        ({"t": 0.0, "type": "n", "in": 10, "out": 1}, "requests[0].hash_ranges: missing"),
        ({"type": "n", "in": 10, "out": 1}, "requests[0].t: missing"),
        ({**one(), "hash_ranges": 7}, "requests[0].hash_ranges: found 7, expected a list"),
        (7, "requests[0]: found 7, expected an object"),
        ({"t": 0.0, "type": "subagent"}, "requests[0].requests: missing"),
        ({"t": 0.0, "type": "subagent", "requests": [one(tokens=0)]}, "requests[0].requests[0].in: found 0"),
    ],
)
def test_a_bad_request_is_named_with_its_place(refused, bad, words):
    assert words in refused(read_agentic, [line(one()), line(bad)], 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block_size": 8}, "block_size: found 8, expected 4 as on the lines before"),
        ({"block_size": 0}, "block_size: found 0"),
        ({"hash_id_scope": "global"}, 'hash_id_scope: found "global", expected "local"'),
        ({"requests": None}, "requests: found null, expected a list"),
    ],
)
def test_a_bad_line(refused, changes, words):
    assert words in refused(read_agentic, [line(one()), line(one(), **changes)], 2)


def test_lines_that_are_cut_or_empty(refused, tmp_path):
    assert "it may be cut off" in refused(read_agentic, [line(one()), line(one())[:-9]], 2, end="")
    with pytest.raises(InputError, match="holds no request"):
        read(tmp_path, line())


def waits(trace):
    """(arrival, turn, arrival of the request that it waited for, wait) of every request."""
    found = []
    for i in range(len(trace)):
        before = int(trace.after[i])
        wait = None if np.isnan(trace.delay_s[i]) else float(trace.delay_s[i])
        found.append(
            (
                float(trace.arrival_s[i]),
                int(trace.turns[i]),
                float(trace.arrival_s[before]) if before >= 0 else None,
                wait,
            )
        )
    return found


def test_a_request_waits_its_think_time_for_the_one_before(tmp_path):
    trace = read(
        tmp_path,
        line(
            one(0.0, api_time=3.0, think_time=0.0),
            one(10.0, api_time=2.0, think_time=6.5),
            one(20.0, api_time=2.0),  # without think_time: by the clock
            one(21.0),  # before the end of the one before it
            one(30.0),  # nothing says when the one before it ended: at once
        ),
    )
    assert waits(trace) == [
        (0.0, 0, None, None),
        (10.0, 1, 0.0, 6.5),
        (20.0, 2, 10.0, 8.0),
        (21.0, 3, 20.0, 0.0),
        (30.0, 4, 21.0, 9.0),
    ]
    assert [r.think_s for r in trace] == [6.5, 8.0, 0.0, 9.0, None]


def test_a_sub_agent_waits_for_its_parent_and_the_parent_not_for_it(tmp_path):
    agent = {
        "t": 10.0,
        "type": "subagent",
        "requests": [one(0.0, think_time=9.0), one(5.0, think_time=2.0, api_time=1.0)],
    }
    trace = read(tmp_path, line(one(0.0, api_time=4.0), agent, one(12.0, think_time=8.0)))
    assert waits(trace) == [
        (0.0, 0, None, None),
        (10.0, 0, 0.0, 6.0),
        (12.0, 1, 0.0, 8.0),
        (15.0, 1, 10.0, 2.0),
    ]
    assert [r.think_s for r in trace] == [8.0, 2.0, None, None]  # the start of a sub-agent is no next turn


def test_behind_a_request_that_was_broken_off_the_clock_counts(tmp_path):
    lost = one(5.0, out=0, api_time=1.0, think_time=3.0)
    trace = read(tmp_path, line(one(0.0, api_time=2.0), lost, one(9.0, think_time=1.0), one(11.0, think_time=1.5)))
    assert waits(trace) == [(0.0, 0, None, None), (9.0, 1, 0.0, 7.0), (11.0, 2, 9.0, 1.5)]
    first_lost = read(tmp_path, line(lost, one(9.0, think_time=1.0)))
    assert waits(first_lost) == [(9.0, 0, None, None)]


@pytest.mark.parametrize("key", ["think_time", "api_time"])
@pytest.mark.parametrize("value", [-1.0, "3", float("nan")])
def test_a_bad_wait(refused, key, value):
    text = refused(read_agentic, [line(one(), one(1.0, **{key: value}))], 1)
    assert f"requests[1].{key}: found" in text
