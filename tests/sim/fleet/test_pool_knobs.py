"""Knobs of several models on the same GPUs: each moves what it should."""

import pytest

from sim.run import simulate
from sim.scenario import Scenario

MODEL = "llama-2-13b"
DAY = {
    "models": 8,
    "alpha": 0.0,
    "rate": 2.0,
    "days": 3,
    "day": "10 min",
    "window": "60 s",
    "bursts": 1,
    "quiet": 0.0,
    "burst": 1.0,
    "swing": 0.0,
    "max_output": 100,
}
WARM = {"name": "warmserve", "window": "60 s", "period": "10 min"}


@pytest.fixture(scope="module")
def found():
    known = {}

    def go(fleet=None, trace=None, models=8, gpus=2, **prewarm):
        key = repr((fleet, trace, models, gpus, prewarm))
        if key not in known:
            document = {
                "schema": "kvsim-scenario/1",
                "model": MODEL,
                "trace": {"daily": {**DAY, **(trace or {})}},
                "hardware": {"profile": "a100-80", "replicas": gpus},
                "engine": {"prefix_caching": False},
                "fleet": {
                    "scaling": "target_utilization",
                    "min": 0,
                    "models": [{"name": MODEL} for _ in range(models)],
                    "prewarm": {**WARM, **prewarm},
                    **(fleet or {}),
                },
            }
            known[key] = simulate(Scenario.from_dict(document)).summary
        return known[key]

    return go


def later(summary):
    return summary["fleet"]["prewarm"]["later_hit_ratio"]


def loads(summary):
    return summary["fleet"]["prewarm"]["loads"]


def test_the_right_period_foretells_and_a_wrong_one_does_not(found):
    assert later(found()) > later(found(period="7 min")) + 0.1


def test_windows_as_long_as_the_run_foretell_nothing(found):
    assert loads(found()) > 0
    assert loads(found(window="3 h")) == 0
    assert later(found(window="3 h")) < later(found())


def test_smaller_instances_are_wanted_in_larger_numbers(found):
    assert loads(found(requests=4)) > loads(found(requests=32))


def test_a_warm_start_costs_its_time(found):
    fast, slow = found(), found(fleet={"warm_init": "3 s"})
    assert slow["ttft_ms"]["p99"] > fast["ttft_ms"]["p99"] + 1_000
    assert slow["fleet"]["start_mean_s"] > fast["fleet"]["start_mean_s"] + 2


def test_room_for_weights_makes_more_instances_share(found):
    """Of two models on two GPUs, both are on both if weights may take the room; else one of each."""
    few, many = _shared(0.3), _shared(0.9)
    assert few["tiers"]["hbm"]["count"] == 2
    assert many["tiers"]["hbm"]["count"] == 4


def _shared(weights):
    document = {
        "schema": "kvsim-scenario/1",
        "model": MODEL,
        "trace": {"daily": {**DAY, "models": 2, "days": 1, "rate": 0.5}},
        "hardware": {"profile": "a100-80", "replicas": 2},
        "engine": {"prefix_caching": False},
        "fleet": {"models": [{"name": MODEL}, {"name": MODEL}], "prewarm": {"name": "gpu_sharing", "weights": weights}},
    }
    return simulate(Scenario.from_dict(document)).summary
