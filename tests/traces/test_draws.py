"""Distributions as a scenario writes them: what a value means, its mean, its range, and what is refused."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from traces.draws import Numbers, Times

U = (np.arange(20_000) + 0.5) / 20_000


@pytest.mark.parametrize(
    ("kind", "value", "distribution"),
    [
        (Numbers, 512, "constant"),
        (Numbers, {"mean": 512}, "constant"),
        (Numbers, {"mean": 512, "sigma": 0.5}, "lognormal"),
        (Numbers, {"min": 3, "max": 9}, "uniform"),
        (Numbers, {"mean": 512, "distribution": "exponential"}, "exponential"),
        (Times, "10 s", "constant"),
        (Times, {"mean": "10 s"}, "exponential"),
        (Times, {"mean": "10 s", "sigma": 1}, "lognormal"),
        (Times, {"min": "0 s", "max": "9 s"}, "uniform"),
        (Times, {"mean": "10 s", "distribution": "constant"}, "constant"),
        (Times, {"mean": "10 s", "max": "60 s"}, "exponential"),
    ],
)
def test_the_keys_name_the_distribution_and_it_reads_back(kind, value, distribution):
    draw = kind.model_validate(value)
    assert draw.distribution == distribution
    written = json.loads(json.dumps(draw.model_dump(mode="json", exclude_none=True)))
    assert kind.model_validate(written) == draw


@pytest.mark.parametrize(
    ("value", "mean", "deviation"),
    [
        ("10 s", 10.0, 0.0),
        ({"mean": "10 s"}, 10.0, 10.0),
        ({"mean": "10 s", "sigma": 0.5}, 10.0, 10 * (np.exp(0.25) - 1) ** 0.5),
        ({"min": "4 s", "max": "10 s"}, 7.0, 6 / 12**0.5),
    ],
)
def test_times_have_the_mean_and_the_deviation_of_their_distribution(value, mean, deviation):
    times = np.array([Times.model_validate(value).at(u) for u in U])
    assert times.mean() == pytest.approx(mean, rel=1e-3)
    assert times.std() == pytest.approx(deviation, rel=1e-2)
    assert (np.diff(times) >= 0).all()  # quantiles ascend


def test_whole_numbers_are_all_as_likely_in_a_range():
    found = [Numbers.model_validate({"min": 3, "max": 6}).at(u) for u in U]
    assert np.unique(found, return_counts=True)[1].tolist() == [5_000] * 4
    assert (min(found), max(found)) == (3, 6)


def test_a_maximum_caps_and_the_ends_stay_finite():
    capped = Numbers.model_validate({"mean": 100, "sigma": 1, "max": 150})
    assert max(capped.at(u) for u in U) == 150
    assert Numbers.model_validate({"mean": 1, "sigma": 4}).at(0.0) == 1
    for value in ({"mean": "10 s"}, {"mean": "10 s", "sigma": 4}):
        ends = [Times.model_validate(value).at(u) for u in (0.0, 1 - 2**-53)]
        assert np.isfinite(ends).all()
        assert min(ends) >= 0


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (Numbers, 0, "greater than or equal to 1"),
        (Numbers, 1.5, "expected a whole number"),
        (Numbers, True, "expected a whole number, or a mapping"),
        (Numbers, "512", "expected a whole number, or a mapping"),
        (Numbers, {"sigma": 1}, "mean: lognormal needs mean and sigma"),
        (Numbers, {"min": 4}, "max: uniform needs min and max"),
        (Numbers, {"min": 4, "max": 3}, "min: must not be above max"),
        (Numbers, {"mean": 4, "min": 1, "max": 3}, "mean: uniform does not use it"),
        (Numbers, {"mean": 4, "distribution": "zipf"}, "distribution"),
        (Numbers, {"mean": 4, "sgima": 1}, "sgima"),
        (Numbers, {"mean": float("nan")}, "mean"),
        (Times, 10, "no unit"),
        (Times, "-1 s", "negative"),
        (Times, {"mean": "10 s", "sigma": 1, "distribution": "exponential"}, "sigma: exponential does not use it"),
        (Times, {}, "mean: exponential needs mean"),
    ],
)
def test_senseless_distributions_are_refused(kind, value, words):
    with pytest.raises(ValidationError, match=words):
        kind.model_validate(value)
