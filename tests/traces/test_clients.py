"""Closed-loop clients: who waits for whom, what a prompt holds, and that draws depend on nothing else."""

from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from hw_profiles.errors import InputError
from traces.clients import ClientsSpec, converse
from traces.order import unchained
from traces.stats import ideal_hits

VARIED = {
    "clients": 5,
    "conversations": 3,
    "rounds": {"min": 1, "max": 4},
    "system_tokens": 100,
    "first_input_tokens": {"mean": 200, "sigma": 1},
    "input_tokens": {"mean": 50, "sigma": 1},
    "output_tokens": {"min": 1, "max": 40},
    "think_time": {"mean": "10 s"},
}


def made(run_seed=0, **changes):
    return converse(ClientsSpec.model_validate({**VARIED, **changes}), run_seed)


def conversations(trace):
    """{session: its requests in order of turn}"""
    found = {}
    for request in trace:
        found.setdefault(request.session, []).append(request)
    return found


def test_two_rounds_by_hand():
    trace = converse(ClientsSpec(clients=2, rounds=2, system_tokens=20, input_tokens=10, output_tokens=7), 0)
    rows = [(r.session, r.turn, r.input_tokens, r.output_tokens, r.think_s) for r in trace]
    assert rows == [(0, 0, 30, 7, 0.0), (0, 1, 47, 7, None), (1, 0, 30, 7, 0.0), (1, 1, 47, 7, None)]
    a, b, c, d = ([*r.hash_ids] for r in trace)
    assert a[:1] == b[:1] == c[:1] == d[:1]  # the full block of the system prompt
    assert len({*a[1:], *b[1:], *c[1:], *d[1:]}) == 1 + 2 + 1 + 2  # all others are the conversation's own
    assert (trace.after.tolist(), trace.closed_loop) == ([-1, 0, -1, 2], True)


def test_a_prompt_is_all_that_was_said_and_a_new_message():
    trace = made()
    assert len(unchained(trace)) == 0
    assert len(conversations(trace)) == 15
    grown = 0
    for rounds in conversations(trace).values():
        assert [r.turn for r in rounds] == list(range(len(rounds)))
        assert rounds[0].input_tokens > 100
        for before, after in pairwise(rounds):
            grown += 1
            full = before.input_tokens // 16
            assert after.input_tokens > before.input_tokens + before.output_tokens
            assert after.hash_ids[:full] == before.hash_ids[:full]
            assert ideal_hits(trace)[after.index] == 16 * full  # of the answer nothing was seen before
    assert grown > 15
    shared = {tuple(r.hash_ids[: 100 // 16]) for r in trace}
    assert len(shared) == 1


def test_a_client_does_one_thing_after_the_other():
    trace = made()
    for client in range(5):
        own = [r for r in trace if r.session // 3 == client]
        assert [r.session for r in own] == sorted(r.session for r in own)
        assert trace.after[own[0].index] == -1
        for before, after in pairwise(own):
            assert trace.after[after.index] == before.index
            # earliest times: as if everything before had been served in no time
            assert after.arrival_s == pytest.approx(before.arrival_s + trace.delay_s[after.index])
            thinks = trace.delay_s[after.index] if after.session == before.session else None
            assert before.think_s == thinks  # after the last round no turn follows, but the client still pauses
    assert (trace.delay_s[trace.after >= 0] > 0).all()


def key(request):
    return request.session, request.turn


def lengths(trace):
    return {key(r): (r.input_tokens, r.output_tokens) for r in trace}


def test_lengths_and_think_times_depend_on_nothing_else():
    base = made(conversations=2)
    assert list(base) == list(made(conversations=2))
    assert lengths(base) != lengths(made(1, conversations=2))
    assert lengths(made(1, conversations=2)) == lengths(made(7, conversations=2, seed=1))
    slower = made(conversations=2, think_time={"mean": "30 s"})
    assert lengths(base) == lengths(slower)
    thinks = {key(r): r.think_s for r in slower}
    assert all(thinks[key(r)] == pytest.approx(3 * r.think_s) for r in base if r.think_s is not None)
    more = made(conversations=2, clients=9)
    assert lengths(base).items() <= lengths(more).items()
    longer = made(conversations=2, rounds=6)
    assert {k: v for k, v in lengths(base).items() if k in lengths(longer)} == lengths(base)


def test_ramp_up_spreads_the_first_messages():
    trace = made(ramp_up="10 s", think_time="100 s")
    first = [trace.arrival_s[trace.session_ids == 3 * client].min() for client in range(5)]
    assert first == pytest.approx([0.0, 2.0, 4.0, 6.0, 8.0])


@pytest.mark.parametrize("tokens", [1, 16, 512])
def test_blocks_of_any_size(tokens):
    trace = made(block_tokens=tokens)
    assert trace.block_tokens == tokens
    assert lengths(trace) == lengths(made())
    assert len(unchained(trace)) == 0
    hits = ideal_hits(trace)
    for rounds in conversations(trace).values():
        for before, after in pairwise(rounds):
            assert hits[after.index] == before.input_tokens // tokens * tokens


def test_the_hash_covers_parameters_and_seed():
    names = [made().content_sha256, made(1).content_sha256, made(max_parallel=2).content_sha256]
    assert len(set(names)) == 3
    assert made(3, seed=1).content_sha256 == made(4, seed=1).content_sha256
    assert made(max_parallel=2).max_parallel == 2
    assert made().max_parallel is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": 0}, "clients"),
        ({"clients": 2.0}, "clients"),
        ({"conversations": 0}, "conversations"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": {"min": 0, "max": 3}}, "rounds.min"),
        ({"system_tokens": -1}, "system_tokens"),
        ({"input_tokens": 0}, "input_tokens"),
        ({"output_tokens": {"mean": 0}}, "output_tokens"),
        ({"think_time": 3}, "no unit"),
        ({"think_time": {"mean": "-3 s"}}, "negative"),
        ({"max_parallel": 0}, "max_parallel"),
        ({"block_tokens": 0}, "block_tokens"),
        ({"thinktime": "3 s"}, "thinktime"),
        ({"clients": 100_000, "conversations": 1_000}, "too many requests"),
    ],
)
def test_senseless_parameters_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        ClientsSpec.model_validate({**VARIED, **changes})


def test_prompts_of_too_many_blocks_say_which_option_helps():
    spec = ClientsSpec.model_validate({"clients": 100, "rounds": 1, "input_tokens": 9_000_000, "block_tokens": 1})
    with pytest.raises(InputError, match=r"clients\.block_tokens: .* larger block_tokens need fewer"):
        converse(spec, 0)


def test_arrivals_ascend_for_any_rounding():
    trace = made(clients=40, conversations=5, rounds=5, think_time={"mean": "1 s", "sigma": 4})
    assert (np.diff(trace.arrival_s) >= 0).all()
    assert (trace.after < np.arange(len(trace))).all()
