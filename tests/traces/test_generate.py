from itertools import pairwise

import numpy as np
import pytest

import traces.generate
from traces.arrivals import limit
from traces.generate import GenerateSpec, Lengths, generate
from traces.order import unchained
from traces.stats import ideal_hits, stats

BASE = {"requests": 400, "rate": 4.0}


def spec(**changes):
    return GenerateSpec.model_validate({**BASE, **changes})


def test_the_same_seed_gives_the_same_trace_another_does_not():
    one, again, other = generate(spec(), 1), generate(spec(), 1), generate(spec(), 2)
    assert list(one) == list(again)
    assert one.content_sha256 == again.content_sha256
    assert list(one) != list(other)
    assert one.content_sha256 != other.content_sha256


def test_a_seed_in_the_parameters_wins():
    fixed = spec(seed=1)
    assert list(generate(fixed, 5)) == list(generate(spec(), 1))
    assert generate(fixed, 5).content_sha256 == generate(spec(), 1).content_sha256


def test_the_hash_covers_the_parameters():
    assert generate(spec(), 1).content_sha256 != generate(spec(zipf=1.1), 1).content_sha256


def test_a_shorter_trace_is_the_beginning_of_a_longer_one():
    longer = generate(spec(requests=400), 3)
    shorter = generate(spec(requests=150), 3)
    assert list(shorter) == list(limit(longer, 150))


def test_ids_are_chained_dense_and_in_order_of_appearance():
    trace = generate(spec(), 0).validate()
    assert len(unchained(trace)) == 0
    _, first = np.unique(trace.hash_ids, return_index=True)
    assert (np.diff(first) > 0).all()
    assert trace.hash_ids.max() == len(first) - 1


def test_times_are_whole_milliseconds_from_zero_on():
    trace = generate(spec(), 0)
    assert (np.round(trace.arrival_s * 1e3) / 1e3 == trace.arrival_s).all()
    assert trace.arrival_s[0] >= 0


def test_the_rate_is_met_from_the_start():
    trace = generate(spec(requests=20_000, rate=10.0, turns=4.0, max_input=1_000_000), 0)
    assert stats(trace)["rate_per_s"] == pytest.approx(10.0, rel=0.05)
    half = int((trace.arrival_s < trace.arrival_s[-1] / 2).sum())
    assert half == pytest.approx(10_000, rel=0.05)  # no ramp: sessions were open before the trace


def test_nothing_shared_without_system_prompts_and_later_turns():
    trace = generate(spec(system_prompts=0, turns=1.0), 0)
    assert ideal_hits(trace).sum() == 0


@pytest.mark.parametrize(("tokens", "shared"), [(1024, 1024), (1300, 1024), (511, 0)])
def test_one_system_prompt_shares_its_full_blocks_with_all(tokens, shared):
    trace = generate(spec(system_prompts=1, system_tokens={"mean": tokens, "sigma": 0}, turns=1.0), 0)
    assert ideal_hits(trace).tolist() == [0] + [shared] * 399


def test_a_later_turn_extends_the_prompt_before():
    """One session at a time: a request whose first block is that of the one before continues it."""
    trace = generate(spec(requests=60, rate=0.01, turns=6.0, think_time="1 s", system_prompts=0), 4)
    rows = list(trace)
    grown = 0
    for before, after in pairwise(rows):
        full = before.input_tokens // 512
        if full and after.hash_ids[0] == before.hash_ids[0]:
            grown += 1
            assert after.hash_ids[:full] == before.hash_ids[:full]
            # the answer and at least one token of a new message
            assert after.input_tokens > before.input_tokens + before.output_tokens
    assert grown > 20


def test_popularity_follows_zipf():
    """Rank 1 of 8 system prompts with exponent 1 has a share of 1 / (1 + 1/2 + ... + 1/8)."""
    lengths = {"system_tokens": {"mean": 512, "sigma": 0}, "first_tokens": {"mean": 300}}
    trace = generate(spec(requests=8000, turns=1.0, system_prompts=8, zipf=1.0, **lengths), 0)
    firsts = trace.hash_ids[trace.hash_offsets[:-1]]
    shares = np.sort(np.unique(firsts, return_counts=True)[1])[::-1] / 8000
    expected = np.array([1 / r for r in range(1, 9)]) / sum(1 / r for r in range(1, 9))
    assert shares == pytest.approx(expected, abs=0.025)  # 5 sigma of a share of 0.37


def test_lengths_are_log_normal_with_the_given_mean():
    lengths = Lengths(mean=500, sigma=0.8)
    u = (np.arange(20_000) + 0.5) / 20_000
    values = np.array([lengths.at(x) for x in u])
    assert values.mean() == pytest.approx(500, rel=0.01)
    assert np.log(values[values > 0]).std() == pytest.approx(0.8, rel=0.02)
    assert Lengths(mean=77).at(0.01) == Lengths(mean=77).at(0.99) == 77
    assert Lengths(mean=1, sigma=4).at(1e-9) == 1


def test_no_prompt_exceeds_the_limit():
    trace = generate(spec(max_input=3000, turns=8.0), 0)
    assert trace.input_tokens.max() == 3000  # first messages are cut to it


def test_a_limit_below_the_system_prompt():
    trace = generate(spec(max_input=700, system_prompts=1, system_tokens={"mean": 2048}, turns=1.0), 0)
    assert set(trace.input_tokens.tolist()) == {700}
    assert ideal_hits(trace)[1:].tolist() == [512] * 399


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "chatt"},
        {"requests": 0},
        {"requests": 1.5},
        {"rate": 0},
        {"rate": float("nan")},
        {"turns": 0.5},
        {"think_time": 30},  # no unit
        {"system_prompts": -1},
        {"system_tokens": {"mean": 0}},
        {"system_tokens": {"mean": 10, "sigma": -1}},
        {"system_tokens": {"mean": 10, "sgima": 1}},
        {"ratee": 3},
        {"rate": 1e6, "think_time": "1 h"},
        {"rate": 1e4},  # with the default think_time: minutes to make the sessions that are open when it begins
    ],
)
def test_senseless_parameters_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        spec(**changes)


def test_single_turns_before_the_trace_are_not_made(monkeypatch):
    made = []
    own = traces.generate._session
    monkeypatch.setattr(traces.generate, "_session", lambda *given: made.append(given[2]) or own(*given))
    trace = generate(spec(requests=50, rate=200.0, turns=1.0), 1)
    assert made[: len(trace)] == trace.session_ids.tolist()  # though twelve mean think times of them came before
    assert made[0] > 12 * 200 * 60 * 0.9
    assert spec(rate=1e4, turns=1.0).rate == 1e4
