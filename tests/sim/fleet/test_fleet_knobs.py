"""Every knob of `fleet:` moves what it should, and every option of the policies that ship does."""

import pytest

from policies.build import policy_options
from policies.tables import FLEET
from sim.fleet.spec import FleetSpec
from sim.run import simulate

CHAT = {"generate": {"requests": 400, "rate": 8, "turns": 1, "system_prompts": 0, "output_tokens": {"mean": 200}}}
REACTIVE = {"name": "target_utilization", "requests": 8}
FLEET_BASE = {"scaling": REACTIVE, "start_time": "5 s", "window": "2 s", "requests_per_replica": 8}


def reactive(**options):
    return {"scaling": {**REACTIVE, **options}}


def predictive(**options):
    return {"scaling": {"name": "predictive", "requests": 8, "period": "10 s", **options}}


def scheduled(at, period="10 s"):
    return {"scaling": {"name": "scheduled", "at": at, "period": period}}


LOADED = {"start_time": None, "engine_init": "1 s"}
KNOBS = {
    "scaling": ([{"scaling": "none"}, {}], "", "on"),
    "min": ([{"min": 1}, {"min": 2}, {"min": 4}], "on", "ttft"),
    "max": ([{"max": 1}, {"max": 2}, {"max": 6}], "on", "ttft"),
    "initial": ([{"initial": 1}, {"initial": 3}, {"initial": 6}], "", "gateway"),
    "window": ([{"window": "2 s"}, {"window": "20 s"}], "ttft", ""),
    "start_time": ([{"start_time": "1 s"}, {"start_time": "10 s"}, {"start_time": "30 s"}], "ttft start", ""),
    "load_rate": ([LOADED, {**LOADED, "load_rate": "4 GB/s"}, {**LOADED, "load_rate": "1 GB/s"}], "start ttft", ""),
    "engine_init": ([LOADED, {**LOADED, "engine_init": "9 s"}, {**LOADED, "engine_init": "40 s"}], "start ttft", ""),
    "requests_per_replica": ([{"requests_per_replica": 4}, {"requests_per_replica": 32}], "", "gateway"),
    "target_utilization.requests": ([reactive(requests=4), reactive(requests=32)], "ttft", "on"),
    "target_utilization.lower": ([reactive(lower=0.1), reactive(lower=0.79)], "", "on"),
    "target_utilization.upper": ([reactive(upper=0.6), reactive(upper=1.0)], "", "on"),
    "target_utilization.protect": ([reactive(), reactive(protect="60 s")], "on", ""),
    "target_utilization.stabilization": ([reactive(), reactive(stabilization="30 s")], "on", ""),
    "predictive.requests": ([predictive(requests=4), predictive(requests=32)], "", "on"),
    "predictive.utilization": ([predictive(utilization=0.4), predictive(utilization=1.0)], "", "on"),
    "predictive.period": ([predictive(), predictive(period="24 h")], "*on", ""),
    "scheduled.at": ([scheduled({"0 s": 1}), scheduled({"0 s": 2}), scheduled({"0 s": 5})], "on", "ttft"),
    "scheduled.period": (
        [scheduled({"0 s": 1, "5 s": 4}, "8 s"), scheduled({"0 s": 1, "5 s": 4}, "20 s")],
        "on",
        "",
    ),
}
"""What is set in turn; what grows with it and what shrinks (`*`: what moves at all)."""


@pytest.fixture(scope="module")
def found(scenario):
    """Metrics of a fleet; each is run once."""
    known = {}

    def go(changes):
        fleet = {key: value for key, value in {**FLEET_BASE, **changes}.items() if value is not None}
        key = repr(fleet)
        if key not in known:
            made = scenario(trace=CHAT, hardware={"profile": "h100-sxm", "replicas": 6}, tiers=[{"name": "hbm"}])
            summary = simulate(made.set("fleet", fleet)).summary
            did = summary["fleet"]
            known[key] = {
                "on": did["mean_on"],
                "start": did["start_mean_s"],
                "gateway": did["gateway"]["requests"],
                "ttft": summary["ttft_ms"]["mean"],
            }
        return known[key]

    return go


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_moves_what_it_should(found, knob):
    values, up, down = KNOBS[knob]
    runs = [found(changes) for changes in values]
    for name in (*up.split(), *down.split()):
        series = [run[name.strip("*")] for run in runs]
        assert len(set(series)) == len(series), (name, series)
        if not name.startswith("*"):
            assert series == sorted(series, reverse=name in down.split()), (name, series)


ELSEWHERE = {
    "models": "test_pool.py",
    "prewarm": "test_pool.py",
    "warm_init": "test_pool_knobs.py",
    "warmserve.window": "test_pool_knobs.py",
    "warmserve.period": "test_pool_knobs.py",
    "warmserve.requests": "test_pool_knobs.py",
    "warmserve.lend": "test_pool.py",
    "serverless_llm.keep_alive": "test_pool.py",
    "gpu_sharing.weights": "test_pool_knobs.py",
}
"""Those of several models, and who looks after them."""


def test_every_knob_has_a_row():
    options = {f"{name}.{option}" for name, policy in FLEET.items() for option in policy_options(policy)}
    assert {*FleetSpec.model_fields, *options} == set(KNOBS) | set(ELSEWHERE)
