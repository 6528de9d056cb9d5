"""`--explain`: each resource moves what it should, and nothing else; what cannot be run says why."""

import json
from functools import partial
from pathlib import Path

import pytest

from hw_profiles.errors import InputError
from sim.inputs import load_inputs
from sim.run import simulate
from sim.scenario import Scenario
from sim.whatif.explain import SHOWN, changed, explain, save_explain, shown_metrics
from sim.whatif.resources import Step, resources

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


def scenario(**sections):
    return Scenario.load(EXAMPLE).set_all([("trace.limit", 80), *sections.items()])


@pytest.fixture(scope="module")
def study():
    spec = scenario(**{"tiers.dram.capacity": "8 GiB", "engine.num_gpu_blocks": 4000})
    result = spec.run()
    return result, explain(result, spec)


def ratio(study, resource, factor, metric):
    base = next(m["value"] for m in study["metrics"] if m["key"] == metric)
    (found,) = [r for r in study["resources"] if r["key"] == resource]
    (run,) = [r for r in found["runs"] if r["factor"] == factor]
    return run["metrics"][metric] / base


def test_the_run_itself_is_the_base(study):
    result, found = study
    own = {m["key"]: m["value"] for m in result.summary["metrics"]}
    assert {m["key"]: m["value"] for m in found["metrics"]} == {key: own[key] for key in SHOWN}
    assert found["requests"] == found["of"] == 80
    assert found["config_sha256"] == result.summary["config_sha256"]


@pytest.mark.parametrize(
    ("resource", "factor", "metric", "least", "most"),
    [
        ("hbm_bandwidth", 0.5, "tpot_p95_ms", 1.4, 2.6),
        ("hbm_bandwidth", 2.0, "tpot_p95_ms", 0.4, 0.8),
        ("compute", 0.5, "ttft_p99_ms", 1.5, 3.0),
        ("compute", 2.0, "ttft_p99_ms", 0.4, 0.75),
        ("fixed_times", 2.0, "tpot_p95_ms", 1.02, 1.6),
        ("fixed_times", 0.5, "tpot_p95_ms", 0.6, 0.99),
        ("host_time", 2.0, "tpot_p95_ms", 1.03, 1.4),
    ],
)
def test_a_resource_moves_what_it_bounds(study, resource, factor, metric, least, most):
    assert least < ratio(study[1], resource, factor, metric) < most


def test_what_the_run_has_is_tried(prompt_again):
    found = explain(prompt_again.run(), prompt_again)
    assert [resource["key"] for resource in found["resources"]] == [
        "hbm_bandwidth", "compute", "fixed_times", "pcie_h2d", "pcie_d2h", "cap.pcie_joint", "capacity.dram",
        "capacity.hbm", "host_time",
    ]  # fmt: skip
    assert all("metrics" in run for resource in found["resources"] for run in resource["runs"])


@pytest.fixture
def prompt_again(tmp_path):
    rows = [(0, 1, 1600), (10, 2, 3200), (20, 1, 1600), (30, 2, 3200), (40, 1, 1600)]
    lines = [
        json.dumps({"timestamp": 1000 * t, "input_length": n, "output_length": 2,
                    "hash_ids": [1000 * family + i for i in range(-(-n // 512))]})
        for t, family, n in rows
    ]  # fmt: skip
    (tmp_path / "trace.jsonl").write_text("\n".join(lines) + "\n")
    document = {
        "schema": "kvsim-scenario/1",
        "trace": {"path": "trace.jsonl"},
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "engine": {"num_gpu_blocks": 256},
        "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "700 MiB"}],
        "policies": {"offload": "write_through"},
    }
    return Scenario.from_dict(document, base_dir=tmp_path)


@pytest.mark.parametrize(("factor", "longer"), [(0.5, 2.0), (2.0, 0.5)])
def test_a_link_moves_the_loads_that_cross_it(prompt_again, factor, longer):
    """A prompt of one piece comes back over PCIe: bytes over bandwidth, but for the latency of its copies."""
    spec, loads = prompt_again.set("links", {"pcie_joint": {"bandwidth": "500 GB/s"}}), []
    for step in (None, Step("", factor, scale="pcie_h2d")):
        change = None if step is None else partial(changed, step=step)
        loads.append(simulate(spec, inputs=load_inputs(spec, change=change)).summary["load_ms"]["max"])
    assert loads[1] / loads[0] == pytest.approx(longer, rel=0.1)


def test_a_device_moves_the_loads_from_its_tier(prompt_again):
    tiers = [{"name": "hbm"}, {"name": "ssd", "capacity": "8 GiB", "direct": True}]
    spec = prompt_again.set("tiers", tiers)
    found = explain(spec.run(), spec)
    assert {"device.ssd", "capacity.ssd"} <= {resource["key"] for resource in found["resources"]}
    half = load_inputs(spec, change=partial(changed, step=Step("", 0.5, scale="device.ssd")))
    slower, own = (simulate(spec, inputs=inputs).summary["load_ms"]["max"] for inputs in (half, load_inputs(spec)))
    assert slower / own == pytest.approx(2.0, rel=0.1)


def test_capacities_are_those_that_the_scenario_would_set(prompt_again):
    found = explain(prompt_again.run(), prompt_again)
    by_key = {resource["key"]: resource["runs"] for resource in found["resources"]}
    less = prompt_again.set("tiers.dram.capacity", "350 MiB").run().summary
    more = prompt_again.set("engine.num_gpu_blocks", 512).run().summary
    own = prompt_again.run().summary
    assert less["prefix"]["hit_ratio"] < own["prefix"]["hit_ratio"]
    assert more["prefix"]["hit_tokens"]["hbm"] > own["prefix"]["hit_tokens"]["hbm"]
    assert by_key["capacity.dram"][0]["metrics"] == shown_metrics(less)
    assert by_key["capacity.hbm"][1]["metrics"] == shown_metrics(more)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm"])
@pytest.mark.parametrize("hbm", [{"name": "hbm"}, {"name": "hbm", "capacity": "20 GiB"}])
def test_more_room_for_kv_is_more_blocks(engine, hbm):
    """In memory that grows as it must; whatever rule of the engine there is for how many blocks fit."""
    spec = scenario(**{"engine": {"kind": engine}, "tiers": [hbm], "trace.limit": 3})
    result = spec.run()
    numbers = {row["path"]: row["value_si"] for row in result.profile_values}
    (room,) = [r for r in resources(spec, result.summary, numbers) if r.key == "capacity.hbm"]
    own = result.summary["hardware"]["hbm_budget"]["blocks"]
    for step in room.steps:
        budget = load_inputs(spec.set_all(step.settings), change=partial(changed, step=step)).budget
        assert budget.blocks == pytest.approx(own * step.factor, abs=1)


def test_a_long_trace_is_cut_for_all_reruns_alike():
    spec = scenario()
    found = explain(spec.run(), spec, requests=40)
    assert (found["requests"], found["of"]) == (40, 80)
    cut = spec.set("trace.limit", 40).run().summary
    assert found["metrics"][0]["value"] == cut["ttft_ms"]["p99"]


def test_what_cannot_be_run_says_why():
    """Half of the room for one block holds none."""
    spec = scenario(**{"tiers": [{"name": "hbm", "capacity": "2 MiB"}], "trace.limit": 3})
    found = explain(spec.run(), spec)
    (half, twice) = next(r["runs"] for r in found["resources"] if r["key"] == "capacity.hbm")
    assert "does not fit the HBM" in half["problem"]
    assert "metrics" not in half
    assert twice["metrics"]["ttft_p99_ms"] is None  # every request is too long for two blocks
    assert found["metrics"][0]["value"] is None


def test_no_requests_are_refused(study):
    with pytest.raises(InputError, match="--explain-requests: found 0"):
        explain(study[0], scenario(), requests=0)


def test_the_file_is_the_study(study, tmp_path):
    path = save_explain(study[1], tmp_path)
    assert json.loads(path.read_text()) == json.loads(json.dumps(study[1]))


@pytest.mark.slow
def test_processes_give_the_same(study):
    spec = scenario(**{"tiers.dram.capacity": "8 GiB", "engine.num_gpu_blocks": 4000})
    assert explain(study[0], spec, workers=2) == study[1]


def test_changes_have_intervals_of_the_same_requests():
    """HBM at half its rate is surely worse; what is said to be sure has an interval without 0."""
    spec = Scenario.load(EXAMPLE).set("trace.limit", 400)
    found = explain(spec.run(), spec)
    (hbm,) = [resource for resource in found["resources"] if resource["key"] == "hbm_bandwidth"]
    base = {metric["key"]: metric["value"] for metric in found["metrics"]}
    for run, sign in zip(hbm["runs"], (1, -1), strict=True):
        low, high = run["intervals"]["tpot_p95_ms"]
        change = run["metrics"]["tpot_p95_ms"] - base["tpot_p95_ms"]
        assert low <= change <= high
        assert sign * low > 0
        assert sign * high > 0
    json.dumps(found, allow_nan=False)
