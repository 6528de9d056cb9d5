"""Generated days of several models: what repeats, what is shuffled, and the shares."""

import numpy as np
import pytest

from hw_profiles.errors import InputError
from traces.daily import DailySpec, daily
from traces.spec import TraceSpec, build

SMALL = {"rate": 5.0, "days": 3, "day": "1 h", "window": "120 s", "noise": 0.0}


def made(**changes):
    return daily(DailySpec.model_validate({**SMALL, **changes}), 0)


def counts(trace, model, days=3, windows=30):
    mine = trace.arrival_s[trace.models == model]
    return np.histogram(mine, bins=days * windows, range=(0, days * 3600))[0].reshape(days, windows)


def test_days_are_alike_and_shuffled_ones_are_not():
    periodic, shuffled = counts(made(), 0), counts(made(order="shuffled"), 0)
    assert np.corrcoef(periodic)[0, 1] > 0.9
    assert abs(np.corrcoef(shuffled)[0, 1]) < 0.5
    assert shuffled.sum() == pytest.approx(periodic.sum(), rel=0.05)
    moved, there = np.sort(shuffled[0]), np.sort(periodic[0])
    assert (abs(moved - there) <= 5 * np.sqrt(there)).all()  # Poisson counts of the same means


def test_popularity_falls_with_the_rank():
    number = np.bincount(made(models=4, days=6).models)
    assert number[0] / number[1] == pytest.approx(4, rel=0.1)
    assert number[0] / number[3] == pytest.approx(16, rel=0.2)
    even = np.bincount(made(models=4, alpha=0.0, days=6).models)
    assert even.max() / even.min() < 1.1


def test_the_rate_is_kept_whatever_the_shape():
    for shape in ({}, {"bursts": 0}, {"bursts": 4, "burst": 20.0}, {"quiet": 0.0, "bursts": 3}, {"swing": 1.0}):
        assert len(made(**shape)) == pytest.approx(5 * 3 * 3600, rel=0.03)


def test_bursts_noise_swing_and_quiet_make_the_shape():
    flat = counts(made(bursts=0, swing=0.0), 0)
    assert flat.std() / flat.mean() < 0.08
    assert counts(made(bursts=3, burst=10.0), 0).max() > 3 * flat.max()
    assert counts(made(bursts=0, swing=1.0), 0).min() < 0.2 * flat.min()
    assert (counts(made(bursts=3, quiet=0.0), 0) == 0).sum() == 3 * 27
    noisy = counts(made(bursts=0, swing=0.0, noise=0.5), 0)
    assert noisy.std() > 3 * flat.std()


def test_lengths_are_those_of_the_trace_that_is_named():
    conv, code = (made(lengths=name, max_input=100_000, max_output=100_000) for name in ("conv", "code"))
    assert np.median(conv.input_tokens) == pytest.approx(1020, rel=0.05)
    assert np.median(conv.output_tokens) == pytest.approx(129, rel=0.05)
    assert np.median(code.input_tokens) == pytest.approx(1469, rel=0.05)
    assert np.median(code.output_tokens) == pytest.approx(13, rel=0.1)
    cut = made(max_input=512, max_output=64)
    assert cut.input_tokens.max() == 512
    assert cut.output_tokens.max() == 64


def test_models_follow_their_requests():
    trace = build(TraceSpec.model_validate({"daily": SMALL, "limit": 100, "rate_scale": 2}), 0)
    assert len(trace.models) == 100
    assert list(trace.models) == list(made().models[:100])
    assert not trace.block_tokens


def test_seeds_draw_other_days_and_a_seed_of_its_own_stays():
    one, other = (build(TraceSpec.model_validate({"daily": SMALL}), seed) for seed in (0, 1))
    assert len(one) != len(other) or not np.array_equal(one.arrival_s, other.arrival_s)
    fixed = [build(TraceSpec.model_validate({"daily": {**SMALL, "seed": 7}}), seed) for seed in (0, 1)]
    assert np.array_equal(fixed[0].arrival_s, fixed[1].arrival_s)


@pytest.mark.parametrize(
    "changes",
    [{"bursts": 31}, {"models": 0}, {"rate": 1e6}, {"order": "random"}, {"day": "1 s"}, {"quiet": 0.0, "bursts": 0}],
)
def test_nonsense_is_refused(changes):
    with pytest.raises((InputError, ValueError)):
        made(**changes)
