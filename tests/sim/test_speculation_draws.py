"""Speculative decoding: what is drawn by place in an answer, and the calendar of steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.calendar import Calendar
from sim.engine.speculative_draws import Acceptance


def slow(acceptance, chances, easy, found, generated, output):
    """The same, place by place."""
    steps, place = [], generated
    while place < output:
        drafted = len(chances) if found[place] else 0
        right = 0
        while right < drafted and easy[place + right] < chances[right]:
            right += 1
        kept = min(right + 1, output - place)
        steps.append((drafted, right, kept))
        place += kept
    return steps


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    chances=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    match=st.sampled_from([0.0, 0.3, 1.0]),
    request_id=st.integers(0, 99),
    generated=st.integers(1, 40),
    more=st.integers(1, 200),
)
def test_steps_by_place(chances, match, request_id, generated, more):
    from traces.random import stream

    output, tokens = generated + more, len(chances)
    easy = stream(7, "speculation", request_id).random(output + tokens)
    found = stream(7, "speculation.match", request_id).random(output) < match
    steps = Acceptance(tokens, chances, match, 7).steps(request_id, generated, output)
    expected = slow(steps, chances, easy, found, generated, output)
    assert list(zip(*(column.tolist() for column in steps), strict=True)) == expected
    assert steps.kept.sum() == more


@pytest.mark.parametrize("a", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("k", [1, 4])
def test_mean_accepted_length_converges_to_the_formula(a, k):
    """Equation 1 of Leviathan et al. 2023, over 200,000 tokens; the standard error is below 0.01."""
    steps = Acceptance(k, [a] * k, 1.0, 0).steps(0, 1, 200_000)
    expected = k + 1 if a == 1 else (1 - a ** (k + 1)) / (1 - a)
    assert 1 + steps.accepted.mean() == pytest.approx(expected, abs=0.03)


def test_chances_by_place_multiply():
    steps = Acceptance(3, [0.9, 0.5, 0.2], 1.0, 0).steps(3, 1, 200_000)
    assert steps.accepted.mean() == pytest.approx(0.9 + 0.9 * 0.5 + 0.9 * 0.5 * 0.2, abs=0.01)


def test_longer_drafts_find_the_same_tokens_easy():
    """A draw belongs to a place of the answer: a longer draft never takes more steps, and rejoining changes nothing."""
    short, long = (Acceptance(k, [0.7] * k, 1.0, 5) for k in (2, 6))
    assert len(long.steps(1, 1, 500).kept) < len(short.steps(1, 1, 500).kept)
    whole = short.steps(1, 1, 500)
    middle = 1 + int(whole.kept[:50].sum())
    for rest, all_of_it in zip(short.steps(1, middle, 500), whole, strict=True):
        assert rest.tolist() == all_of_it[50:].tolist()


def test_calendar_is_a_sum_by_step():
    calendar, expected = Calendar(2), np.zeros((2, 9000), dtype=int)
    rng = np.random.default_rng(0)
    for step in range(0, 6000, 30):
        numbers = rng.integers(0, 9, (2, rng.integers(1, 2500)))
        calendar.add(step, numbers)
        expected[:, step : step + numbers.shape[1]] += numbers
        if step % 60:
            calendar.take(step + 5, numbers[:, 5:])
            expected[:, step + 5 : step + numbers.shape[1]] -= numbers[:, 5:]
        ahead = calendar.ahead(step, 400)
        assert (ahead == expected[:, step : step + ahead.shape[1]]).all()
        assert not expected[:, step + ahead.shape[1] : step + 400].any()
