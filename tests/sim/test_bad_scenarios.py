"""Every mistake in a scenario is one line that names the file, the path in it, and what would be right."""

import copy
import re

import pytest

from hw_profiles.errors import InputError
from sim.scenario import Scenario

GOOD = {
    "schema": "kvsim-scenario/1",
    "trace": "quickstart",
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm", "replicas": 2},
    "engine": {"max_num_seqs": 256},
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "64 GiB"}],
    "policies": {"eviction": "lru", "offload": "write_through"},
    "slo": {"ttft_p99": "2 s"},
}
LATER = "is not available in this version"


def put(path, value):
    document = copy.deepcopy(GOOD)
    node = document
    *steps, last = path.split(".")
    for step in steps:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    node[int(last) if isinstance(node, list) else last] = value
    return document


BAD = [
    # path, value, what the line says after "bad.yaml: "
    ("rooting", "round_robin", "unknown key, found 'rooting', .*did you mean 'routing'?"),
    ("hardware.replica", 2, "hardware: unknown key, found 'replica', .*did you mean 'replicas'?"),
    ("engine.max_num_seq", 2, "engine: unknown key, found 'max_num_seq', .*did you mean 'max_num_seqs'?"),
    ("tiers.1.capasity", "1 GiB", "tiers.dram: unknown key, found 'capasity', .*did you mean 'capacity'?"),
    ("links.pcie_h2d", {"bandwith": "1 GB/s"}, "links.pcie_h2d: unknown key, .*did you mean 'bandwidth'?"),
    ("schema", "kvsim-scenario/2", "schema: found 'kvsim-scenario/2', expected .*kvsim-scenario/1"),
    ("tiers.1.capacity", "2 TB/s", "tiers.dram.capacity: unknown unit 'TB/s', .*'2 TiB'"),
    ("tiers.1.capacity", 1024, "tiers.dram.capacity: no unit, found 1024, .*'2 TiB'"),
    ("tiers.1.capacity", "-1 GiB", "tiers.dram.capacity: negative"),
    ("tiers.1.capacity", "nan GiB", "tiers.dram.capacity: not a finite number"),
    ("tiers.1.capacity", float("nan"), "tiers.dram.capacity: not a finite number"),
    ("tiers.1", {"name": "dram"}, "tiers.dram.capacity: missing, expected a size such as '2 TiB'"),
    ("tiers.1", {"capacity": "1 GiB"}, r"tiers.1.name: missing"),
    ("tiers.1.shared", "rack", "tiers.dram.shared: found 'rack', expected .*'node'"),
    ("tiers.0.shared", "node", "tiers.hbm.shared: HBM belongs to one replica"),
    ("tiers", [{"name": "dram", "capacity": "1 GiB"}, {"name": "hbm"}], "tiers: the first tier must be hbm"),
    ("tiers", [], "tiers: the first tier must be hbm"),
    ("tiers", [{"name": "hbm"}] * 2, "tiers: two tiers have the same name"),
    ("tiers.1.name", "dramm", "tiers.dramm.name: unknown tier, found 'dramm', .*did you mean 'dram'?"),
    ("tiers", "hbm", "tiers: found 'hbm', expected a list"),
    ("trace", "quikstart", "trace.*: unknown trace, found 'quikstart', .*did you mean 'quickstart'?"),
    ("trace", "./absent.jsonl", "absent.jsonl"),
    ("trace", {"name": "quickstart", "rate_scale": 0}, "trace.rate_scale: found 0, expected a number > 0"),
    ("trace", {"name": "quickstart", "rate_scale": -1.0}, "trace.rate_scale: found -1.0, expected a number > 0"),
    ("trace", {"name": "quickstart", "limit": 0}, "trace.limit: found 0, expected a number >= 1"),
    ("trace", {"name": "quickstart", "spread_arrivals": 3}, "trace.spread_arrivals: no unit, found 3"),
    ("model", "llama-3.1-8", "model: unknown model, found 'llama-3.1-8', .*did you mean 'llama-3.1-8b'?"),
    ("model", "./absent/config.json", "absent/config.json: file not found"),
    ("hardware.profile", "h100-sxn", "hardware.profile: .*'h100-sxn'.*did you mean 'h100-sxm'?"),
    ("hardware.replicas", 0, "hardware.replicas: found 0, expected a number >= 1"),
    ("hardware.replicas", 1.5, "hardware.replicas: found 1.5, expected a whole number"),
    ("hardware.replicas", "2", "hardware.replicas: found '2', expected a whole number"),
    ("hardware.replicas", True, "hardware.replicas: found True, expected a whole number"),
    ("engine.gpu_memory_utilization", 1.5, "engine.gpu_memory_utilization: found 1.5, expected a number <= 1"),
    ("engine.gpu_memory_utilization", 0, "engine.gpu_memory_utilization: found 0, expected a number > 0"),
    ("engine.gpu_memory_utilization", float("nan"), "engine.gpu_memory_utilization: found nan, expected a"),
    ("engine.gpu_memory_utilization", 0.1, "model: llama-3.1-8b does not fit the HBM of h100-sxm"),
    ("engine.block_tokens", 48, "engine.block_tokens: .*found 48, expected a divisor of 512"),
    ("engine.block_tokens", 1024, "engine.block_tokens: .*found 1024, expected a divisor of 512"),
    ("engine.max_num_batched_tokens", 100, "engine.max_num_batched_tokens: .*found 100.*>= 256"),
    ("engine.host_time", "3", "engine.host_time: no unit"),
    (
        "links.nvlink",
        {"bandwidth": "1 GB/s"},
        "links: unknown link, found 'nvlink', expected one of pcie_h2d, pcie_d2h",
    ),
    ("links.pcie_h2", {"bandwidth": "1 GB/s"}, "links: unknown link, .*did you mean 'pcie_h2d'?"),
    ("links.pcie_h2d", {"bandwidth": "0 GB/s"}, "links.pcie_h2d.bandwidth: .*a rate > 0"),
    ("links.pcie_h2d", {"latency": "-1 us"}, "links.pcie_h2d.latency: negative"),
    ("slo", {"ttft_p98": "2 s"}, "slo: unknown SLO, found 'ttft_p98', .*did you mean 'ttft_p9[09]'?"),
    ("slo", {"tfft_p99": "2 s"}, "slo: unknown SLO, .*did you mean 'ttft_p99'?"),
    ("slo", {"ttft_p99": "0 s"}, "slo.ttft_p99: .*a time > 0"),
    ("slo", {"ttft_p99": "2 GB"}, "slo.ttft_p99: unknown unit 'GB'"),
    ("seed", -1, "seed: found -1, expected a number >= 0"),
    ("seed", 0.5, "seed: found 0.5, expected a whole number"),
    ("policies", {"evicton": "lru"}, "policies: unknown key, found 'evicton', .*did you mean 'eviction'?"),
    ("policies.eviction", 3, "policies.eviction: found 3, expected a policy name"),
    ("policies.eviction", {"size": 3}, "policies.eviction: .*expected a policy name"),
    # parts of the schema that come later
    (
        "hardware.tp",
        3,
        "hardware.tp: the ranks of a tensor-parallel group share a node, found 3, expected a divisor of",
    ),
    ("hardware.expert_parallel", "yes", "hardware.expert_parallel: found 'yes', expected true or false"),
    ("engine.graphs", 1, "engine.graphs: found 1, expected true or false"),
    ("engine.kv_dtype", "fp9", "engine.kv_dtype: unknown number format, found 'fp9', expected one of bf16"),
    ("engine.weights_dtype", "fp_8", "did you mean 'fp8'?"),
    ("engine.expert_skew", -1, "engine.expert_skew: found -1, expected a number >= 0"),
    ("engine.kind", "tgi", "engine.kind: found 'tgi', expected 'vllm', 'sglang' or 'tensorrt_llm'"),
    ("engine", {"chunked_context": False}, "engine.chunked_context: vllm computes long prompts in chunks, found False"),
    ("engine.capacity_policy", "max_utilization", "not with kind: vllm, .*expected kind: tensorrt_llm"),
    (
        "engine",
        {"kind": "tensorrt_llm", "gpu_memory_utilization": 0.9},
        "engine.gpu_memory_utilization: not with kind: tensorrt_llm, found 0.9, expected 1.0",
    ),
    ("engine", {"kind": "tensorrt_llm", "scheduling": "priority"}, "engine.scheduling: not with kind: tensorrt_llm"),
    ("engine", {"kind": "tensorrt_llm", "framework": "hf_concat"}, "engine.framework: not with kind: tensorrt_llm"),
    (
        "tiers.1.device",
        "nvme-gen4",
        "tiers.dram.device: this memory belongs to the machine.s profile, found .nvme-gen4",
    ),
    ("tiers.1.prefetch", "lookahead", "tiers.dram.prefetch: prefetching is for all tiers: .*policies.prefetch, found"),
    (
        "tiers.1.inclusive",
        False,
        "tiers.hbm.offload: an exclusive tier takes what .*found 'write_through', .*write_back",
    ),
    ("tiers.1.leaf_only", "no way", "tiers.dram.leaf_only: found 'no way', expected true or false"),
    ("tiers.1.inclusive", 2, "tiers.dram.inclusive: found 2, expected true or false"),
    (
        "policies",
        {"prefetch": {"name": "on_arrival", "into": "drm"}},
        "policies.prefetch.into: no such tier .*, found 'drm', expected one of hbm, dram; did you mean 'dram'?",
    ),
    ("policies.eviction", {"name": "s3fifo", "small_ratio": 2}, "policies.eviction.small_ratio: found 2, expected a n"),
    ("policies.eviction", {"name": "lru_k", "k": 0}, "policies.eviction.k: found 0, expected a whole number from 1 to"),
    ("tiers.1.direct", True, "tiers.dram.direct: only for a disk or a network"),
    ("tiers.0.inclusive", False, "tiers.hbm.inclusive: HBM holds what the GPU uses"),
    ("tiers.1.block_tokens", 24, "tiers.dram.block_tokens: .*tier before, found 24, expected a multiple of 16"),
    ("tiers.1.offload", "write_back", "tiers.dram.offload: there is no tier behind this one"),
    ("policies", "arkval", "policies: unknown system, found 'arkval', .*; did you mean 'arkvale'?"),
    ("policies", ["kivi", "lru"], "policies: unknown system, found 'lru'"),
    ("policies", ["quest", "arkvale"], "policies: arkvale cannot be combined with that system: both decide selection"),
    ("policies", {"name": "kivi", "bit": 4}, "policies.bit: kivi has no such option, found 4, .*bits"),
    ("policies", "arkvale", "policies.selection: .*no blocks for other requests, found 'arkvale', .*prefix_caching"),
    ("policies", {"prefetch": "lookahead"}, "policies.prefetch: unknown prefetch policy, found 'lookahead'"),
    ("policies", {"routing": "least_loaded"}, "policies.routing: a router is named beside `policies`, as `routing: "),
    ("policies", {"scheduling": "mcsf"}, "policies.scheduling: unknown scheduling policy, found 'mcsf', .*'mc_sf'?"),
    ("policies", {"selection": "qest"}, "policies.selection: unknown selection policy, found 'qest', .*'quest'?"),
    ("trace", {"clients": 8}, "trace.clients: found 8, expected a mapping"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=[f"{p}={v}"[:60] for p, v, _ in BAD])
def test_mistake_is_told_in_one_line(path, value, message, tmp_path):
    with pytest.raises(InputError) as error:
        Scenario.from_dict(put(path, value), where="bad.yaml", base_dir=tmp_path).run()
    line = str(error.value)
    assert "\n" not in line
    pattern = message.replace("(", r"\(").replace("?", r"\?") if message.endswith("?") else message
    assert re.search(pattern, line), line
    if "absent" not in message:
        assert line.startswith("bad.yaml: "), line


@pytest.mark.parametrize("key", ["schema", "trace", "model", "hardware"])
def test_missing_sections(key):
    document = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(InputError, match=f"^bad.yaml: {key}: missing$"):
        Scenario.from_dict(document, where="bad.yaml")


def test_the_good_scenario_is_good():
    Scenario.from_dict(GOOD, where="bad.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tiers.ssd.capacity", "1 TiB", "bad.yaml: tiers.ssd.capacity: no item of that name, found 'ssd', .*hbm, dram"),
        ("tiers.dran.capacity", "1 TiB", "no item of that name.*did you mean 'dram'"),
        ("tiers.dram.capacity", "1 TB/s", "bad.yaml: tiers.dram.capacity: unknown unit"),
        ("tiers.dram.capacity", "[1", "bad.yaml: tiers.dram.capacity: cannot read the value|tiers.dram.capacity"),
        ("seed.x", 1, "seed"),
        ("hardware.replicas.x", 1, "bad.yaml: hardware.replicas.x: cannot set below a plain value, found 2"),
        ("engine.max_seqs", 1, "bad.yaml: engine: unknown key, found 'max_seqs', .*'max_num_seqs'"),
    ],
)
def test_set_reports_where_it_fails(path, value, message):
    with pytest.raises(InputError, match=message) as error:
        Scenario.from_dict(GOOD, where="bad.yaml").set(path, value)
    assert "\n" not in str(error.value)


def test_set_reads_values_as_the_command_line_does():
    scenario = Scenario.from_dict(GOOD)
    assert scenario.set("hardware.replicas", "4").spec.hardware.replicas == 4
    assert scenario.set("tiers.dram.capacity", "1 TiB").spec.tiers[1].capacity == 2**40
    assert scenario.set("policies", "{offload: none}").spec.policies.offload.name == "none"
    assert scenario.set("trace.rate_scale", "2").spec.trace.rate_scale == 2
    assert scenario.set("engine.host_time", "3 ms").spec.engine.host_time == 3e-3
    assert scenario.spec.hardware.replicas == 2  # the original stays


def test_set_below_a_trace_given_as_a_path():
    scenario = Scenario.from_dict({**GOOD, "trace": "./day.jsonl"}).set("trace.rate_scale", 2.0)
    assert scenario.spec.trace.path == "./day.jsonl"
    assert scenario.spec.trace.rate_scale == 2


def test_what_is_read_from_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("schema: kvsim-scenario/1\nschema: kvsim-scenario/1\n")
    with pytest.raises(InputError, match=r"mine.yaml: line 2: key 'schema' given twice"):
        Scenario.load(path)
    with pytest.raises(InputError, match=r"absent.yaml: file not found"):
        Scenario.load(tmp_path / "absent.yaml")
