"""Replicas that start, serve, drain and stop: what a start takes, what it costs, and that nobody is lost."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import InputError
from hw_profiles.models import load_model
from sim.cost.parallel import Parallel
from sim.fleet.weights import replica_bytes
from sim.inputs import load_inputs
from sim.run import simulate
from sim.scenario import Scenario
from sim.whatif.prices import cost, load_prices

EXAMPLE = Path(__file__).parents[3] / "examples/autoscale.yaml"
FOUR = {"profile": "h100-sxm", "replicas": 4}
HBM = [{"name": "hbm"}]
CHAT = {"generate": {"requests": 200, "rate": 4, "turns": 2, "think_time": "5 s", "system_prompts": 2}}


def burst(prompt, at, count, output=400):
    """`count` requests of a tenth of a second's distance from `at` on: some forty at a time."""
    return [(round(at + 0.1 * i, 1), 512, output, prompt(int(at) + i, 512)) for i in range(count)]


@pytest.fixture
def step_load(run, prompt):
    """A steady stream, and four minutes of it; replicas on by a schedule: one, two from 60 s to 120 s, one again."""

    def go(fleet, **keywords):
        rows = [(2.0 * i, 512, 64, prompt(i, 512)) for i in range(120)]
        return run(rows, hardware={**FOUR, "replicas": 2}, tiers=HBM, fleet=fleet, **keywords)

    return go


SCHEDULE = {
    "scaling": {"name": "scheduled", "at": {"0 s": 1, "60 s": 2, "120 s": 1}, "period": "1 h"},
    "window": "10 s",
    "start_time": "20 s",
}


def test_none_is_as_if_there_were_no_fleet(scenario):
    plain = scenario(trace=CHAT, hardware=FOUR, tiers=HBM)
    one, other = simulate(plain), simulate(plain.set("fleet", {"scaling": "none"}))
    assert "fleet" not in other.summary
    for name, table in one.tables.items():
        assert table.equals(other.tables[name])


def test_a_limit_without_a_policy_holds(scenario):
    """`scaling: none` keeps all that `max` allows on: no more of them than that serve, or cost."""
    plain = scenario(trace=CHAT, hardware=FOUR, tiers=HBM)
    found = simulate(plain.set("fleet", {"scaling": "none", "max": 2}))
    assert found.summary["fleet"]["mean_on"] == 2
    assert set(found.frames["requests"].replica) == {0, 1}


def test_the_example_keeps_its_slo_for_less_than_all_replicas():
    if not os.environ.get("KVSIM_TRACES"):
        pytest.skip("Azure's code trace is not on this machine (KVSIM_TRACES)")
    shipped = Scenario.load(EXAMPLE)
    summary = simulate(shipped).summary
    assert summary["ttft_ms"]["p99"] < 1e3 * shipped.spec.slo["ttft_p99"]
    assert summary["fleet"]["on_share"] < 0.7


def test_all_replicas_on_from_the_start_are_as_if_there_were_no_fleet(scenario, same_requests):
    plain = scenario(trace=CHAT, hardware=FOUR, tiers=HBM)
    all_on = {"scaling": "target_utilization", "min": 4}
    one, other = simulate(plain), simulate(plain.set("fleet", all_on))
    other.tables["requests"] = other.tables["requests"].select(one.tables["requests"].column_names)
    same_requests(one, other)
    assert other.summary["fleet"]["on_share"] == 1
    assert other.summary["fleet"]["gateway"]["requests"] == 0


@pytest.mark.parametrize("name", ["target_utilization", {"name": "predictive", "requests": 4, "period": "20 s"}])
def test_strides_are_single_steps(scenario, same_requests, name):
    fleet = {"scaling": name, "min": 0, "start_time": "2 s", "window": "1 s", "requests_per_replica": 6}
    if name == "target_utilization":
        fleet["scaling"] = {"name": name, "requests": 4}
    made = scenario(trace=CHAT, hardware=FOUR, dram="8 GiB", fleet=fleet)
    one, other = simulate(made, check=True), simulate(made, check=True, single_step=True)
    assert one.summary["fleet"]["starts"] > 3
    assert one.summary["fleet"] == other.summary["fleet"]
    same_requests(one, other)


def test_cost_of_a_step_load_by_arithmetic(step_load):
    found = step_load(SCHEDULE).summary
    fleet, end = found["fleet"], found["duration_s"]
    assert fleet["starts"] == fleet["stops"] == 1
    assert fleet["replica_s"]["starting"] == pytest.approx(20)
    # it drains its last request from 120 s on, which is short
    assert fleet["replica_s"]["serving"] == pytest.approx(end + 40)
    draining = fleet["replica_s"]["draining"]
    assert 0 <= draining < 2
    assert sum(fleet["replica_s"].values()) == pytest.approx(2 * end)
    assert fleet["gpu_hours"] == pytest.approx((end + 60 + draining) / 3600)
    assert fleet["mean_on"] == pytest.approx(1 + (60 + draining) / end)


def test_a_replica_gets_requests_only_while_it_serves(step_load):
    requests = step_load(SCHEDULE).frames["requests"]
    on = requests[requests.replica == 1].arrival_s
    assert len(on) == 10
    assert on.min() >= 80
    assert on.max() < 120


def test_a_stopped_replica_forgets(run, prompt):
    """One prompt again and again, on the second replica before and after it was off."""
    rows = [(10.0 * i, 1024, 4, prompt(1, 1024)) for i in range(30)]
    fleet = {
        "scaling": {"name": "scheduled", "at": {"0 s": 2, "100 s": 1, "150 s": 2}, "period": "1 h"},
        "min": 1,
        "initial": 2,
        "start_time": "1 s",
    }
    found = run(rows, hardware={**FOUR, "replicas": 2}, dram="8 GiB", fleet=fleet).frames["requests"]
    second = found[found.replica == 1]
    cold = second[second.hit_hbm_tokens == 0]
    assert len(cold) == 2  # the first of each life
    assert (second.hit_dram_tokens == 0).all()
    shared = run(rows, hardware={**FOUR, "replicas": 2}, dram="8 GiB", shared="cluster", fleet=fleet).frames["requests"]
    assert (shared[shared.replica == 1].hit_dram_tokens > 0).any()  # what is shared stays


def test_a_start_takes_weights_over_the_host_link_and_the_engine(run, prompt, scenario):
    rows = [(1.0, 512, 4, prompt(1, 512))]
    cold = {"scaling": {"name": "scheduled", "at": {"0 s": 1}}, "min": 0, "window": "1 s", "engine_init": "3 s"}
    found = run(rows, tiers=HBM, fleet=cold)
    inputs = load_inputs(scenario(rows, tiers=HBM))
    size = replica_bytes(inputs.model, Parallel())
    assert size == inputs.model.weight_bytes
    link = inputs.links["pcie_h2d"]
    load_s = size / link.beta
    request = found.frames["requests"].iloc[0]
    assert request.gateway_wait_s == pytest.approx(3 + load_s, rel=0.01)
    assert found.summary["links"]["pcie_h2d"]["bytes"] == size
    assert found.summary["fleet"]["start_mean_s"] == pytest.approx(3 + load_s, rel=0.01)
    slow = run(rows, tiers=HBM, fleet={**cold, "load_rate": "2 GB/s"}).frames["requests"].iloc[0]
    assert slow.gateway_wait_s == pytest.approx(3 + size / 2e9, rel=0.01)


def test_weights_share_a_root_complex(run, prompt):
    """Four starts at once over one root complex take as long as their bytes."""
    rows = [(1.0, 512, 4, prompt(1, 512))]
    fleet = {"scaling": {"name": "scheduled", "at": {"0 s": 4}}, "min": 0, "window": "1 s", "engine_init": "0 s"}
    alone = run(rows, hardware=FOUR, tiers=HBM, fleet=fleet).frames["requests"]
    capped = run(rows, hardware=FOUR, tiers=HBM, fleet=fleet, links={"host_root": {"bandwidth": "20 GB/s"}})
    size = capped.summary["fleet"]["weight_bytes"]
    assert capped.frames["requests"].gateway_wait_s[0] == pytest.approx(4 * size / 20e9, rel=0.01)
    assert alone.gateway_wait_s[0] < 0.5 * capped.frames["requests"].gateway_wait_s[0]


def test_ttft_still_adds_up(run, prompt):
    rows = burst(prompt, 0.0, 20)
    fleet = {"scaling": "target_utilization", "min": 0, "start_time": "3 s", "requests_per_replica": 2}
    result = run(rows, hardware=FOUR, tiers=HBM, fleet=fleet)
    requests = result.frames["requests"]
    assert (requests.gateway_wait_s > 0).all()
    assert (requests.gateway_wait_s <= requests.queue_s).all()
    found = result.summary["attribution"]["ttft_ms"]["all"]
    assert sum(found["parts"].values()) == pytest.approx(found["mean"])
    assert found["parts"]["gateway_wait"] == pytest.approx(1e3 * requests.gateway_wait_s.mean())


def test_a_faster_start_never_worsens(run, prompt):
    rows = burst(prompt, 10.0, 300)
    fleet = {"scaling": {"name": "target_utilization", "requests": 8}, "requests_per_replica": 8}
    ttft = [
        run(rows, hardware=FOUR, tiers=HBM, fleet={**fleet, "start_time": t}).summary["ttft_ms"]["mean"]
        for t in ("8 s", "2 s", "0 s")
    ]
    assert ttft == sorted(ttft, reverse=True)
    assert ttft[0] > 1.5 * ttft[-1]


def test_more_that_are_always_on_never_worsen(run, prompt):
    rows = burst(prompt, 10.0, 300)
    fleet = {
        "scaling": {"name": "target_utilization", "requests": 8},
        "requests_per_replica": 8,
        "start_time": "8 s",
    }
    found = [run(rows, hardware=FOUR, tiers=HBM, fleet={**fleet, "min": n}).summary for n in (1, 2, 4)]
    ttft = [s["ttft_ms"]["mean"] for s in found]
    assert ttft == sorted(ttft, reverse=True)
    assert ttft[0] > 1.2 * ttft[-1]
    hours = [s["fleet"]["gpu_hours"] / s["duration_s"] for s in found]
    assert hours == sorted(hours)


def test_a_start_that_is_not_wanted_any_more_is_given_up(run, prompt):
    rows = [*burst(prompt, 0.0, 16, output=800), (60.0, 512, 2, prompt(99, 512))]
    fleet = {"scaling": {"name": "target_utilization", "requests": 4}, "start_time": "30 s", "window": "2 s"}
    found = run(rows, hardware=FOUR, tiers=HBM, fleet=fleet).summary["fleet"]
    assert found["cancelled_starts"] == found["starts"] > 0
    assert found["stops"] == 0


def test_a_draining_replica_is_taken_back_before_another_starts(run, prompt):
    rows = [(0.5 * i, 512, 2000 if i < 2 else 64, prompt(i, 512)) for i in range(60)]
    at = {"0 s": 2, "5 s": 1, "10 s": 2}
    fleet = {"scaling": {"name": "scheduled", "at": at, "period": "1 h"}, "initial": 2, "start_time": "30 s"}
    found = run(rows, hardware=FOUR, tiers=HBM, fleet=fleet).summary["fleet"]
    assert (found["kept"], found["starts"], found["stops"]) == (1, 0, 0)


def test_closed_loops_go_on_behind_a_cold_fleet(run):
    clients = {"clients": 3, "conversations": 2, "rounds": 2, "first_input_tokens": 300, "output_tokens": 10}
    fleet = {"scaling": "target_utilization", "min": 0, "start_time": "4 s"}
    found = run(trace={"clients": clients}, hardware=FOUR, tiers=HBM, fleet=fleet).summary
    assert found["requests"]["finished"] == 12
    assert found["fleet"]["gateway"]["requests"] >= 3


def test_rejected_requests_do_not_keep_a_fleet_alive(run, prompt):
    rows = [(0.0, 512, 4, prompt(1, 512)), (1.0, 60_000, 4, prompt(2, 60_000))]
    fleet = {"scaling": "target_utilization"}
    found = run(rows, blocks=200, hardware=FOUR, fleet=fleet).summary
    assert found["requests"]["rejected"] == 1


@pytest.mark.parametrize(
    ("fleet", "says"),
    [
        ({"scaling": "target_utilisation"}, "target_utilization"),
        ({"scaling": "target_utilization", "max": 5}, "fleet.max"),
        ({"scaling": "target_utilization", "min": 3, "max": 2}, "fleet.min"),
        ({"scaling": "target_utilization", "min": 2, "initial": 1}, "fleet.initial"),
        ({"scaling": "none", "start_time": "1 s", "load_rate": "1 GB/s"}, "load_rate"),
        ({"scaling": {"name": "target_utilization", "upper": 2}}, "upper"),
        ({"scaling": {"name": "scheduled", "at": {}}}, "at"),
        ({"scaling": {"name": "scheduled", "at": {"30 h": 2}}}, "before the end of the period"),
        ({"scaling": {"name": "scheduled", "at": {"0 s": 0}}, "min": 0, "window": "1 h"}, "nobody serves"),
        ({"scaling": "target_utilization", "windows": "1 s"}, "window"),
    ],
)
def test_bad_input_is_one_line(run, prompt, fleet, says):
    with pytest.raises(InputError, match=says) as error:
        run([(0.0, 512, 4, prompt(1, 512))], hardware=FOUR, tiers=HBM, fleet=fleet)
    assert "\n" not in str(error.value)


OWN = """
from policies.fleet.base import Scaling, Start

class Greedy(Scaling):
    def plan(self, window):
        return ANSWER
"""


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("'two'", "expected Start or Stop"),
        ("-1", "0 or more"),
        ("[Start(9)]", "no such replica"),
        ("1 / 0", "my_policy.py"),
    ],
)
def test_a_policy_that_breaks_its_contract_is_named(beside, answer, says):
    fleet = {"scaling": "my_policy.py:Greedy", "window": "10 s"}
    made = beside(OWN.replace("ANSWER", answer), {"eviction": "lru"}, fleet=fleet)
    with pytest.raises(InputError, match=says) as error:
        simulate(made)
    assert "\n" not in str(error.value)


def test_a_users_policy_scales(beside):
    fleet = {"scaling": "my_policy.py:Greedy", "window": "10 s", "start_time": "5 s"}
    source = OWN.replace("ANSWER", "2")
    made = beside(source, {"eviction": "lru"}, fleet=fleet, hardware={"profile": "h100-sxm", "replicas": 2})
    assert simulate(made, check=True).summary["fleet"]["starts"] == 1


def test_replicas_of_several_gpus_load_what_all_of_them_hold(tmp_path):
    model = load_model("llama-3.1-70b")
    assert replica_bytes(model, Parallel()) == model.weight_bytes
    assert replica_bytes(model, Parallel(tp=4)) == pytest.approx(model.weight_bytes, rel=0.01)
    assert replica_bytes(model, Parallel(tp=4)) >= model.weight_bytes


def test_the_summary_is_json(step_load):
    found = step_load(SCHEDULE)
    json.dumps(found.summary, allow_nan=False)
    samples = found.frames["samples"]
    serving = samples[(samples.kind == "fleet") & (samples.metric == "serving")].value
    assert set(np.unique(serving)) == {1.0, 2.0}


def test_only_what_is_on_is_paid_for(step_load, scenario):
    found = step_load(SCHEDULE).summary
    found["hardware"]["profile"] = "h100-sxm"
    whole = cost({**found, "fleet": {}}, 2, load_prices())
    paid = cost(found, 2, load_prices())
    share = found["fleet"]["mean_on"] / 2
    assert 0.5 < share < 0.8
    assert paid.gpu == pytest.approx(share * whole.gpu)
    assert paid.host == pytest.approx(share * whole.host)
    assert paid.memory == whole.memory
    assert paid.per_mtok / whole.per_mtok == pytest.approx(paid.total / whole.total)
