"""A sender with a pace: which request is next, and when; each rule against its own arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from hw_profiles.errors import InputError
from traces.clients import ClientsSpec, converse
from traces.sending import Pace, Sending
from traces.spec import TraceSpec, build


def sent(sending, ready, count):
    """Times at which a sender gets rid of `count` requests that are all ready at `ready`."""
    pace, now, times = Pace(sending), ready, []
    for _ in range(count):
        now = pace.earliest(now)
        times.append(now)
        pace.sent(now)
    return np.array(times)


def test_even_pauses_are_a_clock():
    assert sent(Sending(rate=4.0, gaps="even"), 0.0, 5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_chance_with_nothing_to_send_is_lost():
    # chances at 0, 0.25, 0.5, ...: what becomes ready at 0.3 goes at 0.5
    assert sent(Sending(rate=4.0, gaps="even"), 0.3, 3).tolist() == [0.5, 0.75, 1.0]


def test_a_chance_while_no_place_is_free_is_taken_when_one_is():
    pace = Pace(Sending(rate=4.0, gaps="even"))
    pace.sent(0.0)
    pace.held(0.6)  # the chance at 0.25 came meanwhile
    assert pace.earliest(0.6) == 0.6
    pace.sent(0.6)
    pace.held(0.7)  # the next one is at 0.85 anyway
    assert pace.earliest(0.7) == 0.85


@pytest.mark.parametrize(("gaps", "variance"), [("poisson", 1.0), ("uniform", 1 / 3)])
def test_random_pauses_have_the_mean_and_spread_of_their_name(gaps, variance):
    pauses = np.diff(sent(Sending(rate=2.0, gaps=gaps), 0.0, 20_000)) * 2.0
    assert pauses.mean() == pytest.approx(1.0, rel=0.03)
    assert pauses.var() == pytest.approx(variance, rel=0.06)
    assert (pauses >= 0).all()


def test_without_a_rate_there_is_no_pause():
    assert sent(Sending(order="random"), 1.5, 3).tolist() == [1.5, 1.5, 1.5]


def test_random_takes_every_place_alike_and_fifo_the_first():
    pace = Pace(Sending(order="random"))
    counts = np.bincount([pace.chosen(4) for _ in range(4000)], minlength=4)
    assert counts.min() > 900
    fifo = Pace(Sending())
    assert [fifo.chosen(9) for _ in range(3)] == [0, 0, 0]


def test_clients_and_recorded_conversations_have_the_same_keys():
    keys = {"ready_queue": "random", "request_rate": 3.0, "request_gaps": "uniform", "max_parallel": 2}
    trace = converse(ClientsSpec.model_validate({"clients": 3, **keys}), 7)
    assert trace.sending == Sending("random", 3.0, "uniform", 7)
    generated = {"generate": {"requests": 30, "turns": 3.0}, "closed_loop": keys}
    assert build(TraceSpec.model_validate(generated), 7).sending == trace.sending
    assert build(TraceSpec.model_validate({**generated, "rate_scale": 2.0}), 7).sending.rate == 3.0
    assert (
        build(TraceSpec.model_validate({"clients": {"clients": 3, **keys}, "rate_scale": 2.0}), 7).sending.rate == 6.0
    )
    assert converse(ClientsSpec(clients=3), 7).sending is None


def test_rounds_count_on_over_conversations():
    spec = {"clients": 2, "conversations": 2, "rounds": {"min": 1, "max": 3}, "barrier": True, "seed": 1}
    trace = converse(ClientsSpec.model_validate(spec), 0)
    for client in range(2):
        own = np.flatnonzero(trace.session_ids // 2 == client)
        assert sorted(trace.barriers[own].tolist()) == list(range(len(own)))
    assert converse(ClientsSpec.model_validate({**spec, "barrier": False}), 0).barriers is None


def test_the_hash_covers_how_requests_are_sent():
    changes = ({}, {"barrier": True}, {"ready_queue": "random"}, {"request_rate": 2.0})
    assert len({converse(ClientsSpec.model_validate({"clients": 2, **c}), 0).content_sha256 for c in changes}) == 4


def test_a_barrier_must_rise():
    trace = converse(ClientsSpec(clients=2, rounds=2, barrier=True), 0)
    with pytest.raises(InputError, match="later round"):
        replace(trace, barriers=np.zeros(4, np.int64)).validate()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ready_queue": "lifo"}, "ready_queue"),
        ({"request_rate": 0.0}, "request_rate"),
        ({"request_gaps": "even"}, "request_rate"),
        ({"request_rate": 1.0, "request_gaps": "normal"}, "request_gaps"),
        ({"barrier": 1}, "barrier"),
    ],
)
def test_senseless_keys_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        ClientsSpec.model_validate({"clients": 2, **changes})
