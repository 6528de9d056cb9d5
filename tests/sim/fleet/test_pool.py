"""Several models on the same GPUs: whose weights are where, who waits for them, and what a forecast is worth."""

import numpy as np
import pytest

from hw_profiles.errors import InputError
from sim.reproduce.warmserve import CONTENDED
from sim.run import simulate
from sim.scenario import Scenario

MODEL = "llama-2-13b"
DAY = CONTENDED
WARM = {"name": "warmserve", "window": "60 s", "period": "40 min"}


def document(models=12, gpus=4, prewarm=WARM, trace=DAY, **fleet):
    named = [{"name": MODEL} for _ in range(models)] if isinstance(models, int) else models
    several = {"scaling": "target_utilization", "min": 0, "models": named, "prewarm": prewarm, **fleet}
    return {
        "schema": "kvsim-scenario/1",
        "model": named[0]["name"],
        "trace": {"daily": trace},
        "hardware": {"profile": "a100-80", "replicas": gpus},
        "engine": {"prefix_caching": False},
        "fleet": {key: value for key, value in several.items() if value is not None},
    }


@pytest.fixture(scope="module")
def go():
    """Results by what is changed; each is run once."""
    known = {}

    def run(check=False, **changes):
        key = repr((check, changes))
        if key not in known:
            known[key] = simulate(Scenario.from_dict(document(**changes)), check=check)
        return known[key]

    return run


def prewarm(result):
    return result.summary["fleet"]["prewarm"]


@pytest.mark.slow
def test_a_forecast_is_worth_a_period_and_nothing_without(go):
    """The same loads at other times of each day: what is ready when it is asked for collapses."""
    periodic, shuffled = go(), go(trace={**DAY, "order": "shuffled"})
    assert prewarm(periodic)["later_hit_ratio"] > 0.85
    assert prewarm(shuffled)["later_hit_ratio"] < 0.6  # what is left are instances that start again in their burst
    assert prewarm(periodic)["later_hit_ratio"] > prewarm(periodic)["hit_ratio"]  # the first day has no past
    assert periodic.summary["ttft_ms"]["p99"] < shuffled.summary["ttft_ms"]["p99"]


@pytest.mark.slow
def test_lent_memory_is_worth_something(go):
    lending, alone = go(), go(prewarm={**WARM, "lend": False})
    assert prewarm(lending)["lent_peak_bytes"] > 20e9
    assert prewarm(alone)["lent_peak_bytes"] == 0
    assert prewarm(lending)["later_hit_ratio"] > prewarm(alone)["later_hit_ratio"]


SHORT = {**DAY, "days": 1, "day": "20 min", "models": 6, "rate": 2.0}
KINDS = {
    "none": None,
    "warmserve": WARM,
    "serverless_llm": {"name": "serverless_llm", "keep_alive": "20 s"},
    "gpu_sharing": "gpu_sharing",
}


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_lost_and_every_invariant_holds(go, kind):
    models = 6 if kind != "gpu_sharing" else 4
    trace = {**SHORT, "models": models}
    result = go(check=True, models=models, prewarm=KINDS[kind], trace=trace, engine_init="2 s")
    requests = result.frames["requests"]
    assert (requests.status == "finished").all()
    found = result.summary["fleet"]
    assert sum(m["requests"] for m in found["models"]) == len(requests)
    assert all(m["finished"] == m["requests"] for m in found["models"])
    weights = [m["weight_bytes"] for m in found["models"]]
    loaded = result.summary["links"].get("pcie_h2d", {"bytes": 0})["bytes"]
    assert loaded <= found["prewarm"]["loaded_bytes"]
    if kind in ("none", "serverless_llm"):
        cold = found["prewarm"]["starts"]["cold"]
        assert found["prewarm"]["starts"] == {"warm": 0, "partly": 0, "cold": cold}
        assert found["prewarm"]["loaded_bytes"] == cold * weights[0]
    if kind == "gpu_sharing":
        assert found["starts"] == 0
        assert found["prewarm"]["loaded_bytes"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_strides_are_single_steps(kind, same_requests):
    models = 4
    trace = {**SHORT, "models": models, "day": "4 min", "bursts": 1, "rate": 4.0}
    made = Scenario.from_dict(document(models, 2, KINDS[kind], trace, engine_init="1 s"))
    one, other = simulate(made, check=True), simulate(made, check=True, single_step=True)
    assert one.summary["fleet"] == other.summary["fleet"]
    same_requests(one, other)


def test_a_cold_start_is_the_load_and_the_engine(go):
    result = go(models=6, prewarm=None, trace=SHORT, engine_init="2 s")
    model = result.summary["fleet"]["models"][0]
    requests = result.frames["requests"]
    waited = requests[requests.gateway_wait_s > 0].gateway_wait_s
    whole = 2 + model["load_s"]
    assert waited.max() >= whole * 0.99
    first = requests.iloc[0]
    assert first.gateway_wait_s == pytest.approx(whole, rel=0.01)


def test_weights_of_several_gpus_come_over_all_their_links():
    models = [{"name": MODEL, "tp": 1}, {"name": MODEL, "tp": 2}]
    trace = {**SHORT, "models": 2}
    found = simulate(Scenario.from_dict(document(models, 4, None, trace, engine_init="0 s")), check=True)
    alone, split = found.summary["fleet"]["models"]
    assert split["load_s"] == pytest.approx(alone["load_s"] / 2, rel=0.01)
    assert split["gateway_wait_ms"]["max"] < 0.7 * alone["gateway_wait_ms"]["max"]


def test_idle_instances_give_way():
    """Six models on one GPU: without a reclaim only the first to come is kept until its time is over."""
    trace = {**SHORT, "models": 6}
    kept = {"name": "serverless_llm", "keep_alive": "10 min"}
    made = Scenario.from_dict(document(6, 1, kept, trace, engine_init="1 s"))
    found = simulate(made, check=True).summary["fleet"]
    assert found["prewarm"]["starts"]["cold"] >= 6
    assert found["gateway"]["wait_ms"]["max"] < 6e5


def test_a_longer_keep_alive_needs_fewer_starts(go):
    starts = [
        prewarm(go(models=6, prewarm={"name": "serverless_llm", "keep_alive": t}, trace=SHORT, engine_init="1 s"))[
            "starts"
        ]["cold"]
        for t in ("1 s", "30 s", "5 min")
    ]
    assert starts == sorted(starts, reverse=True)
    assert starts[0] > starts[-1]


def test_instances_that_share_a_gpu_are_slower_than_alone(go):
    trace = {**SHORT, "models": 4}
    alone = go(models=4, gpus=4, prewarm=None, trace=trace, min=1).summary
    shared = go(models=4, gpus=4, prewarm="gpu_sharing", trace=trace).summary
    assert shared["fleet"]["starts"] == alone["fleet"]["prewarm"]["starts"]["cold"] == 0
    assert shared["tpot_ms"]["mean"] > 1.2 * alone["tpot_ms"]["mean"]


def test_requests_are_drawn_by_share_where_the_trace_has_one_model():
    models = [{"name": MODEL, "share": 3.0}, {"name": MODEL, "share": 1.0}]
    base = document(models, 2, None, DAY, engine_init="1 s")
    base["trace"] = {"generate": {"requests": 400, "rate": 4, "turns": 1, "max_input": 3000}}
    found = simulate(Scenario.from_dict(base)).summary["fleet"]["models"]
    assert found[0]["requests"] == pytest.approx(300, abs=35)
    assert found[0]["requests"] + found[1]["requests"] == 400


def test_prices_of_each_model_are_its_own():
    models = [{"name": "llama-2-7b"}, {"name": "llama-2-13b"}]
    trace = {**SHORT, "models": 2, "bursts": 8}
    result = simulate(Scenario.from_dict(document(models, 2, None, trace, min=1)))
    requests, steps = result.frames["requests"], result.frames["steps"]
    assert set(requests.replica) == {0, 3} or len(set(requests.replica)) == 2
    each = requests.groupby("replica").tpot_s.median()
    assert each.max() / each.min() == pytest.approx(13 / 6.7, rel=0.25)
    times = result.summary["replica_time"]
    assert sum(times[k] for k in times if k != "replicas") == pytest.approx(
        len(times["replicas"]) * result.summary["duration_s"], rel=0.01
    )
    assert len(np.unique(steps.replica)) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prewarm": "target_utilization"}, "fleet.scaling"),
        ({"scaling": "warmserve"}, "fleet.prewarm"),
        ({"start_time": "1 s"}, "start_time"),
        ({"load_rate": "1 GB/s"}, "load_rate"),
        ({"models": [{"name": MODEL, "tp": 8}]}, "does not fit a node"),
        ({"models": 4}, "requests for 6 models"),
        ({"models": 6, "initial": 1, "gpus": 2}, "do not all find GPUs"),
        ({"models": 6, "min": 2, "max": 1, "initial": 1}, "fleet.min"),
        ({"models": 6, "min": 1, "initial": 0}, "fleet.initial"),
        ({"models": 6, "gpus": 1, "scaling": "none", "prewarm": None, "window": "1 h"}, "nobody serves"),
        ({"models": 6, "max": 5}, "fleet.max"),
        ({"models": [{"name": "llama-2-70b"}]}, "does not fit"),
        ({"models": 40, "gpus": 1, "prewarm": "gpu_sharing"}, "no room"),
    ],
)
def test_bad_input_is_one_line(changes, says):
    with pytest.raises(InputError, match=says) as error:
        simulate(Scenario.from_dict(document(**{"models": 6, "trace": SHORT, **changes})))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["prewarm", "warm_init"])
def test_what_is_for_several_models_is_refused_with_one(key):
    made = document(prewarm=None)
    made["fleet"] = {"scaling": "target_utilization", key: "1 s" if key == "warm_init" else "warmserve"}
    with pytest.raises(InputError, match="several models"):
        Scenario.from_dict(made)
