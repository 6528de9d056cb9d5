"""A run is stopped early only if its SLO is lost, whatever comes; and where it is lost soon, it is stopped soon."""

import numpy as np
import pytest

from kvsim import Scenario
from sim.run import simulate
from sim.whatif.early import Stopped, Watch, most_missed
from sim.whatif.shared import shared_inputs

DOCUMENT = {
    "schema": "kvsim-scenario/1",
    "trace": {"generate": {"requests": 200, "rate": 20, "turns": 3, "first_tokens": {"mean": 6000, "sigma": 1}}},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm"},
    "engine": {"num_gpu_blocks": 9000},
}
CALM = Scenario.from_dict(DOCUMENT).set("trace.rate_scale", 0.2)
CROWDED = Scenario.from_dict(DOCUMENT).set("trace.rate_scale", 2)


def whole(scenario):
    """The run to its end."""
    return simulate(scenario, inputs=shared_inputs(scenario))


def stop(scenario, slo, attainment=None):
    """When a run was stopped and why, or None."""
    try:
        simulate(scenario, inputs=shared_inputs(scenario), watch=Watch(slo, attainment))
    except Stopped as stopped:
        return stopped
    return None


@pytest.mark.parametrize("percentile", [50, 90, 95, 99])
def test_more_beyond_the_limit_than_may_be_is_a_percentile_beyond_it(percentile):
    for requests in (1, 2, 3, 10, 19, 20, 21, 100, 201):
        missed = most_missed(requests, percentile) + 1
        for finished in range(missed, requests + 1):  # others may still be rejected
            values = np.zeros(finished)
            values[finished - missed :] = 1 + 1e-9
            assert np.percentile(values, percentile) > 1
        fewer = np.zeros(requests)
        fewer[requests - max(0, missed - 3) :] = 1 + 1e-9
        assert requests < 3 or np.percentile(fewer, percentile) <= 1  # nor is it far too patient


@pytest.mark.parametrize("scenario", [CALM, CROWDED], ids=["calm", "crowded"])
def test_a_run_that_would_meet_its_slo_is_never_stopped(scenario):
    summary = whole(scenario).summary
    metrics = ("ttft", "tpot", "e2e")
    just = {f"{metric}_{name}": value / 1e3 for metric in metrics for name, value in summary[f"{metric}_ms"].items()}
    assert len(just) == 18
    assert stop(scenario, just) is None
    frame = whole(scenario).frames["requests"]
    limits = {"ttft_p50": float(frame["ttft_s"].quantile(0.8)), "tpot_p50": float(frame["tpot_s"].quantile(0.9))}
    share = ((frame["ttft_s"] <= limits["ttft_p50"]) & ~(frame["tpot_s"] > limits["tpot_p50"])).mean()
    assert stop(scenario, limits, float(share)) is None
    assert stop(scenario, limits, float(share) + 0.06) is not None


@pytest.mark.parametrize("key", ["ttft_p50", "ttft_p95", "ttft_mean", "ttft_max", "e2e_p95", "e2e_mean", "tpot_p90"])
def test_what_is_stopped_misses_its_slo(key):
    metric, _, statistic = key.partition("_")
    value = whole(CROWDED).summary[f"{metric}_ms"][statistic] / 1e3
    stops = [stop(CROWDED, {key: share * value}) for share in (1.0, 0.9, 0.5, 0.01)]
    assert stops[0] is None
    assert stops[3] is not None
    times = [found.at_s if found else float("inf") for found in stops]
    assert times == sorted(times, reverse=True)  # the more hopeless, the sooner


def test_a_hopeless_run_ends_long_before_its_end():
    found = stop(CROWDED, {"ttft_p95": 0.5, "tpot_p95": 10.0})
    assert found.key == "ttft_p95"
    assert found.at_s < 0.3 * whole(CROWDED).summary["duration_s"]
    assert found.missed > 0.05 * found.requests


def test_a_rejected_request_counts_as_missed():
    few = CALM.set("engine.num_gpu_blocks", 600)
    summary = whole(few.set("slo", {"ttft_p99": "1000 s"})).summary
    assert 0.02 < summary["requests"]["rejected"] / summary["requests"]["arrived"] < 0.9
    assert summary["slo"]["met"] is False
    assert stop(few, {"ttft_p99": 1000.0}) is not None
    assert stop(few, {"ttft_max": 1000.0}) is not None
    share = 1 - summary["requests"]["rejected"] / summary["requests"]["arrived"]
    assert stop(few, {"ttft_p50": 1000.0}, share) is None


def test_gaps_between_tokens_and_queues_never_stop_a_run():
    assert stop(CROWDED, {"itl_p99": 1e-6, "queue_p99": 1e-6}) is None
