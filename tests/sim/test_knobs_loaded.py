"""Every knob of a scenario on a loaded run: what it moves, which way, and what it leaves alone.

Chat over four tiers on two busy replicas, each knob in steps of four times or more where it has a scale. The last test
holds this table and those of the other test_knobs_*.py to the schema: a new knob needs a row.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from sim.engine_spec import EngineSpec, LoadingSpec
from sim.policies_spec import PoliciesSpec
from sim.run import simulate
from sim.spec import HardwareSpec, ScenarioSpec
from sim.tier_spec import LinkSpec, TierSpec

CHAT = {
    "requests": 60,
    "rate": 8,
    "turns": 3,
    "think_time": "3 s",
    "system_prompts": 4,
    "first_tokens": {"mean": 3000, "sigma": 0.8},
    "output_tokens": {"mean": 60, "sigma": 0.8},
}
BASE: dict[str, Any] = {
    "trace": {"generate": CHAT},
    "hardware": {"profile": "h100-sxm", "replicas": 2, "gpus_per_node": 2},
    "tiers": [
        {"name": "hbm", "capacity": "3 GiB"},
        {"name": "dram", "capacity": "8 GiB", "shared": "node"},
        {"name": "ssd", "capacity": "16 GiB", "shared": "node"},
        {"name": "remote", "capacity": "40 GiB", "shared": "cluster"},
    ],
}
HBM = {"name": "hbm", "capacity": "3 GiB"}
LARGE = {"tiers": [{"name": "hbm"}]}
"""All the HBM that the engine finds; for knobs that set it."""
TWO = {"tiers": [HBM, {"name": "dram", "capacity": "40 GiB", "shared": "node"}]}
PAGEABLE = {"tiers": [HBM, {"name": "dram", "capacity": "40 GiB", "shared": "node", "pinned": "0 B"}]}
DRIVE = {"tiers": [HBM, {"name": "dram", "capacity": "1 GiB"}, {"name": "ssd", "capacity": "20 GiB"}]}
ALONE = {"tiers": [HBM, {"name": "dram", "capacity": "3 GiB"}], "policies": {"offload": "write_back"}}
ONE = {"hardware": {"profile": "h100-sxm", "replicas": 1}}
FOUR = {"hardware": {"profile": "h100-sxm", "replicas": 4, "gpus_per_node": 2}}
SLOW_LINK = {**TWO, "links": {"pcie_h2d": {"bandwidth": "2 GB/s"}}}
MOE = {**LARGE, "model": "mixtral-8x7b", "hardware": {"profile": "h100-sxm", "replicas": 2, "tp": 4}}


RANKS: dict[str, Any] = {
    **LARGE,
    "model": "qwen3-30b-a3b",
    "hardware": {"profile": "h100-sxm", "replicas": 2, "tp": 4, "expert_parallel": True},
    "engine": {"expert_skew": 1.0},
}
BALANCED = {**RANKS, "hardware": {**RANKS["hardware"], "expert_placement": "balanced"}}
SLIDING = {**LARGE, "model": "gpt-oss-120b", "hardware": {"profile": "h100-sxm", "replicas": 2, "tp": 2}}
SINGLE = {"trace": {"generate": {**CHAT, "turns": 1}}}
"""No conversations: what a turn finds of the one before depends on which of them is faster."""
SHORT_FIRST = {
    "trace": {"generate": CHAT, "priority": {"by": "output_tokens", "limits": [30, 60, 120]}},
    "engine": {"max_num_seqs": 2},
}


def crowd(prompt: int, output: int) -> dict[str, Any]:
    """Sixty requests almost at once, more than HBM has room for."""
    tokens = {"first_tokens": {"mean": prompt, "sigma": 0.3}, "output_tokens": {"mean": output, "sigma": 0.3}}
    return {"generate": {"requests": 60, "rate": 60, "turns": 1, **tokens}}


LONG_PROMPTS = {
    **ONE,
    **LARGE,
    "trace": crowd(6000, 200),
    "engine": {"num_gpu_blocks": 1500, "max_num_batched_tokens": 512},
}
LONG_ANSWERS = {**ONE, **LARGE, "trace": crowd(500, 600), "engine": {"num_gpu_blocks": 700}}


class Knob(NamedTuple):
    """A knob, its values in turn, and which metrics grow, shrink, or stay within 5 %, from one to the next."""

    path: str
    values: tuple[Any, ...]
    up: str = ""
    down: str = ""
    near: str = ""
    sections: Mapping[str, Any] = MappingProxyType({})


def tier_with(tier: str) -> dict[str, Any]:
    return {"tiers": [HBM, {"name": tier, "capacity": "20 GiB"}]}


FEW = {"engine": {"max_num_seqs": 2}}
"""Requests queue."""
RATES = ("20 GB/s", "5 GB/s", "1.25 GB/s")
WAITS = ("0 s", "200 us", "2 ms")
LONG_WAITS = ("0 s", "2 ms", "20 ms")

KNOBS = [
    # sizes: more is reused, so less is computed and the first token comes earlier
    Knob("tiers.hbm.capacity", ("2 GiB", "4 GiB", "16 GiB"), up="hit.hbm", down="ttft bytes.pcie_h2d"),
    Knob("tiers.dram.capacity", ("0 B", "4 GiB", "16 GiB"), up="hit.dram", down="ttft loaded.ssd"),
    Knob("tiers.ssd.capacity", ("0 B", "10 GiB", "40 GiB"), up="hit.ssd", down="loaded.remote"),
    *(
        Knob(
            f"tiers.{t}.capacity", ("1 GiB", "4 GiB", "16 GiB"), up=f"hits hit.{t}", down="ttft", sections=tier_with(t)
        )
        for t in ("dram", "cxl", "c2c", "ssd", "remote")
    ),
    # links toward the GPU move loads, links away from it move stores
    Knob("links.pcie_h2d.bandwidth", RATES, up="load ttft busy.pcie_h2d"),
    Knob("links.pcie_h2d.latency", ("0 s", "20 us", "200 us"), up="load ttft busy.pcie_h2d"),
    Knob("links.pcie_d2h.bandwidth", RATES, up="busy.pcie_d2h"),
    Knob("links.pcie_d2h.latency", ("0 s", "20 us", "200 us"), up="busy.pcie_d2h", near="tpot"),
    Knob("links.pcie_joint.bandwidth", ("80 GB/s", "10 GB/s", "2 GB/s"), up="load ttft"),
    Knob("links.host_root.bandwidth", ("80 GB/s", "10 GB/s", "2 GB/s"), up="load ttft"),
    Knob("links.dram.bandwidth", ("200 GB/s", "20 GB/s", "5 GB/s"), up="load ttft"),
    Knob("links.ssd_read.bandwidth", RATES, up="load ttft busy.ssd_read"),
    Knob("links.ssd_read.latency", LONG_WAITS, up="load ttft busy.ssd_read"),
    Knob("links.ssd_write.bandwidth", RATES, up="busy.ssd_write", near="tpot"),
    Knob("links.ssd_write.latency", LONG_WAITS, up="busy.ssd_write", near="tpot"),
    Knob("links.remote_read.bandwidth", RATES, up="load ttft", sections=tier_with("remote")),
    Knob("links.remote_read.latency", LONG_WAITS, up="load ttft", sections=tier_with("remote")),
    Knob("links.remote_write.bandwidth", RATES, up="busy.remote_write", near="tpot"),
    Knob("links.remote_write.latency", LONG_WAITS, up="busy.remote_write", near="tpot"),
    *(
        knob
        for t in ("cxl", "c2c")
        for knob in (
            Knob(f"links.{t}_read.bandwidth", RATES, up="load ttft", sections=tier_with(t)),
            Knob(f"links.{t}_read.latency", ("0 s", "20 us", "200 us"), up="load ttft", sections=tier_with(t)),
            Knob(f"links.{t}_write.bandwidth", RATES, up=f"busy.{t}_write", sections=tier_with(t)),
            Knob(f"links.{t}_write.latency", ("0 s", "20 us"), up=f"busy.{t}_write", sections=tier_with(t)),
            Knob(f"links.{t}_joint.bandwidth", ("20 GB/s", "5 GB/s", "1 GB/s"), up="load ttft", sections=tier_with(t)),
        )
    ),
    Knob("links.pcie_h2d.chunk", ("1 GiB", "1 MiB", "16 KiB"), up="busy.pcie_h2d", near="bytes.pcie_h2d", sections=TWO),
    # what tiers are made of, and how they share
    Knob("tiers.ssd.device", ("nvme-gen5-raid4", "nvme-gen4"), up="load ttft", sections=tier_with("ssd")),
    Knob("tiers.remote.device", ("rdma-400g", "rdma-200g", "rdma-100g"), up="load ttft", sections=tier_with("remote")),
    Knob("tiers.cxl.device", ("nvlink-c2c", "cxl"), up="load ttft", sections=tier_with("cxl")),
    Knob("tiers.ssd.via", ("hbm", "dram"), up="load ttft bytes.pcie_h2d", sections=DRIVE),
    Knob("tiers.ssd.direct", (False, True), down="bytes.pcie_h2d", sections=tier_with("ssd")),
    Knob("tiers.dram.shared", ("private", "node"), up="hits hit.dram", down="ttft", sections=TWO),
    Knob(
        "tiers.remote.shared",
        ("private", "node", "cluster"),
        up="hits",
        down="ttft",
        sections=tier_with("remote") | FOUR,
    ),
    Knob("tiers.dram.pinned", ("40 GiB", "4 GiB", "0 B"), up="load ttft busy.pcie_h2d busy.pcie_d2h", sections=TWO),
    Knob("links.pcie_h2d.pageable", ("40 GB/s", "10 GB/s", "2 GB/s"), up="load ttft", sections=PAGEABLE),
    Knob("tiers.dram.block_tokens", (256, 1024, 4096), down="hits stored.dram", sections=TWO),
    Knob("tiers.ssd.block_tokens", (16, 32), down="transfers.copies", sections=tier_with("ssd")),
    Knob("tiers.dram.inclusive", (True, False), up="hits moved.dram", sections=ALONE),
    Knob("tiers.hbm.leaf_only", (False, True), up="hits", sections={"tiers": [{**HBM, "eviction": "gdsf"}]}),
    # copies
    Knob(
        "links.pcie_h2d.method", ("loop", "kernel"), down="load", sections={**TWO, "engine": {"kv_layout": "layer_kv"}}
    ),
    Knob(
        "links.pcie_d2h.method",
        ("loop", "batch"),
        down="busy.pcie_d2h",
        sections={**TWO, "engine": {"kv_layout": "layer_kv"}},
    ),
    Knob("engine.kv_layout", ("block", "layer", "layer_kv"), up="load ttft", near="bytes.pcie_d2h", sections=TWO),
    Knob("engine.kv_layout", ("layer_kv", "token_kv"), up="load ttft transfers.copies", sections=TWO),
    # loading
    Knob("engine.loading.mode", ("blocking", "layerwise"), up="layer_wait", down="load ttft", sections=TWO),
    Knob("engine.loading.mode", ("layerwise", "synchronous"), up="layer_wait ttft", sections=TWO),
    Knob("engine.loading.choose", ("always", "by_cost"), down="hits ttft bytes.pcie_h2d", sections=SLOW_LINK),
    Knob("engine.loading.least_tokens", (0, 1024, 1_000_000), down="hits bytes.pcie_h2d", sections=TWO),
    # policies: each has a row of its own in test_knobs_eviction.py and test_knobs_movement.py
    Knob("policies.eviction", ("fifo", "lru", "belady"), up="hits", down="ttft", sections={"tiers": [HBM]}),
    Knob(
        "tiers.dram.eviction",
        ("fifo", "belady"),
        up="hits",
        sections={"tiers": [HBM, {"name": "dram", "capacity": "4 GiB"}]},
    ),
    Knob(
        "policies.offload",
        ("none", "write_through_selective", "write_through"),
        up="stored.dram hits",
        down="ttft",
        sections=TWO,
    ),
    Knob("tiers.dram.offload", ("none", "write_through"), up="stored.ssd hits"),
    Knob("policies.admission", ("always", "second_hit"), down="stored.dram bytes.pcie_d2h", sections=TWO),
    Knob("tiers.ssd.admission", ("always", "second_hit"), down="stored.ssd"),
    Knob(
        "policies.prefetch",
        ("none", {"name": "on_arrival", "into": "dram", "stop": "wait_complete"}),
        up="hit.dram",
        down="load",
    ),
    Knob("policies.scheduling", ("fcfs", "mc_sf"), down="queue ttft", sections=FEW),
    # engine
    Knob("engine.max_num_seqs", (1, 4, 16), up="tpot", down="queue ttft"),
    Knob("engine.scheduling", ("fcfs", "priority"), down="queue ttft", sections=SHORT_FIRST),
    Knob("engine.max_num_batched_tokens", (256, 1024, 4096), up="itl_max", down="ttft", sections=LARGE),
    # room for whole prompts, or kept free: fewer sequences are preempted
    Knob("engine.reserve_full_isl", (False, True), down="preemptions recomputed", sections=LONG_PROMPTS),
    Knob("engine.watermark", (0.0, 0.1, 0.3), up="queue", down="preemptions", sections=LONG_ANSWERS),
    Knob("engine.gpu_memory_utilization", (0.25, 0.3, 0.9), up="hits hit.hbm capacity.hbm", sections=LARGE),
    Knob("engine.num_gpu_blocks", (1000, 2000, 8000), up="hits hit.hbm capacity.hbm", down="ttft", sections=LARGE),
    Knob("engine.block_tokens", (16, 512), down="transfers.copies", sections=TWO),
    Knob("engine.prefix_caching", (False, True), up="hits hit.hbm", down="ttft", sections=LARGE),
    Knob("engine.host_time", ("0 s", "1 ms", "4 ms"), up="ttft tpot"),
    Knob("engine.l2_prefetch", ("0 B", "4 MB"), down="tpot", sections=LARGE | SINGLE),
    Knob("engine.graph_batch_sizes", ([1, 2, 4, 8, 16, 32], [8, 32], [64]), up="tpot", sections=LARGE | SINGLE),
    Knob("engine.graphs", (True, False), up="tpot", sections=LARGE),
    Knob(
        "engine.eager_launch",
        ("20 us", "80 us", "320 us"),
        up="tpot ttft",
        sections={**LARGE, "engine": {"graphs": False}},
    ),
    Knob("engine.weights_dtype", ("bf16", "fp8_block"), down="tpot", up="capacity.hbm", sections=LARGE),
    Knob("engine.kv_dtype", ("bf16", "fp8"), down="bytes.pcie_d2h ttft", up="hit.hbm"),
    Knob("engine.hybrid_kv_cache", (False, True), down="stored.hbm", sections=SLIDING),
    Knob("engine.expert_skew", (0.0, 1.0, 4.0), down="tpot", sections=MOE),
    # cluster and load
    Knob("hardware.profile", ("h100-sxm", "a100-80"), up="ttft tpot"),
    Knob("hardware.replicas", (1, 4, 16), down="ttft tpot queue"),
    Knob("hardware.gpus_per_node", (1, 2, 4), up="hits", down="ttft", sections={**TWO, **FOUR}),
    Knob("hardware.tp", (1, 2, 4), down="ttft tpot", up="capacity.hbm", sections=LARGE | ONE),
    Knob("hardware.pp", (1, 2, 4), up="capacity.hbm", sections=LARGE | ONE),
    Knob("hardware.interconnect", ("400 GB/s", "40 GB/s", "4 GB/s"), up="ttft", sections=MOE),
    Knob("hardware.expert_parallel", (False, True), up="tpot", sections=MOE),
    Knob("hardware.expert_placement", ("contiguous", "balanced"), down="tpot ttft", sections=RANKS),
    Knob("hardware.redundant_experts", (0, 32, 128), down="capacity.hbm", sections=BALANCED),
    Knob("routing", ("round_robin", "prefix_aware"), up="hits", down="ttft", sections={**FOUR, "tiers": [HBM]}),
    Knob("routing", ("round_robin", "cache_aware"), up="hits", sections={**FOUR, "tiers": [HBM]}),
    Knob("routing", ("round_robin", "least_loaded"), down="queue ttft", sections=FOUR),
    Knob("routing", ("round_robin", "kv_load_aware"), down="queue ttft", sections=FOUR),
    Knob("routing", ("round_robin", "session_sticky"), up="hits", sections={**FOUR, "tiers": [HBM]}),
    Knob("routing", ("round_robin", "approximate_prefix"), up="hits", sections={**FOUR, "tiers": [HBM]}),
    Knob("admission_control", ("none", {"name": "queue_limit", "waiting": 1}), up="rejected", down="queue ttft"),
    Knob("admission_control", ("none", {"name": "token_limit", "outstanding": 6000}), up="rejected", down="queue ttft"),
    Knob("policies.reuse", ([], "instcache"), up="answered", down="ttft tpot"),
    Knob(
        "policies.reuse",
        tuple({"name": "metadata_index", "block_tokens": n} for n in (512, 64, 16)),
        up="lookup ttft",
        near="tpot",
    ),
    Knob("trace.rate_scale", (0.25, 1.0, 4.0), up="ttft queue tpot"),
    Knob("model", ("llama-3.1-8b", "llama-2-13b"), up="ttft tpot"),
]


def metrics(result: Any) -> dict[str, float]:
    """What the rows name."""
    s, moved = result.summary, result.frames["transfers"]
    found = {name: s[f"{name}_ms"]["mean"] for name in ("ttft", "tpot", "queue", "load")}
    found |= {"itl_max": s["itl_ms"]["max"], "hits": s["prefix"]["hit_ratio"], "layer_wait": s["time"]["layer_wait_s"]}
    found |= {"preemptions": s["preemptions"], "recomputed": s["prefix"]["recomputed_tokens"]}
    found["rejected"] = s["requests"]["rejected"]
    found["answered"] = s["response_cache"]["hits"] if "response_cache" in s else 0
    found["lookup"] = s["metadata_index"]["lookup_mean_ms"] if "metadata_index" in s else 0
    found["transfers.copies"] = moved["copies"].sum()
    for name, tokens in s["prefix"]["hit_tokens"].items():
        found[f"hit.{name}"] = tokens
        for key in ("stored", "loaded", "moved", "capacity"):
            found[f"{key}.{name}"] = s["tiers"][name][f"{key}_bytes"]
    for name, link in s["links"].items():
        if "busy_s" in link:
            found |= {f"busy.{name}": link["busy_s"], f"bytes.{name}": link["bytes"]}
    return found


@pytest.fixture(scope="module")
def values(scenario):
    """The metrics of a scenario; each one is run once."""
    known: dict[str, dict[str, float]] = {}

    def go(knob: Knob, value: Any) -> dict[str, float]:
        built = scenario(**{**BASE, **knob.sections}).set(knob.path, value)
        text = built.to_yaml()
        if text not in known:
            known[text] = metrics(simulate(built))
        return known[text]

    return go


@pytest.mark.parametrize("knob", KNOBS, ids=[f"{k.path}-{k.values[-1]}" for k in KNOBS])
def test_a_knob_moves_what_it_should(values, knob):
    found = [values(knob, value) for value in knob.values]
    for name in (*knob.up.split(), *knob.down.split(), *knob.near.split()):
        series = [run.get(name, 0.0) for run in found]
        if name in knob.near.split():
            assert max(series) <= 1.05 * min(series), (name, series)
        else:
            ordered = sorted(series, reverse=name in knob.down.split())
            assert series == ordered, (name, series)
            assert len(set(series)) == len(series), (name, series)


ELSEWHERE = {
    "trace": "tests/traces, and test_clients.py for closed loops",
    "schema": "there is one",
    "slo": "test_metamorphic.py",
    "warm_start": "test_warm_start.py",
    "fleet": "fleet/test_fleet_knobs.py",
    "seed": "test_metamorphic.py, test_determinism.py",
    "engine.kind": "test_inflight.py, test_prefill_first.py",
    "engine.capacity_policy": "test_inflight.py",
    "engine.chunked_context": "test_inflight.py",
    "engine.free_gpu_memory_fraction": "test_inflight.py",
    "engine.schedule_policy": "test_prefill_first.py",
    "engine.mixed_chunk": "test_prefill_first.py",
    "engine.schedule_conservativeness": "test_prefill_first.py",
    "engine.mem_fraction_static": "test_prefill_first.py",
    "engine.framework": "test_framework.py",
    "engine.slot_tokens": "test_framework.py",
    "engine.offload_answers": "test_stores.py",
    "engine.speculation": "test_speculation_drafters.py, option by option",
    "engine.host_kv_memory": "test_footprint.py, test_planned.py",
    "policies.architecture": "test_architecture.py",
    "policies.kv_format": "test_formats_and_retention.py",
    "policies.retention": "test_formats_and_retention.py",
    "policies.selection": "test_selection_runs.py",
    "policies.sequence_offload": "test_selection_runs.py",
    "policies.sequence_prefetch": "test_l2_prefetch.py, test_attention_share.py",
    "disaggregation": "test_disaggregation.py",
    "importance": "tests/policies/test_selection_runs.py",
    "tiers.*.name": "what the tier is: every row",
    "tiers.*.prefetch": "refused",
}
"""Fields without a row here, and who looks after them."""


def test_every_knob_has_a_row():
    rows = {
        ".".join("*" if i == 1 and k.startswith(("tiers.", "links.")) else part for i, part in enumerate(k.split(".")))
        for k in (knob.path for knob in KNOBS)
    }
    sections = {"": ScenarioSpec, "hardware.": HardwareSpec, "engine.": EngineSpec, "engine.loading.": LoadingSpec}
    sections |= {"tiers.*.": TierSpec, "links.*.": LinkSpec, "policies.": PoliciesSpec}
    fields = {
        f"{start}{field.alias or name}" for start, spec in sections.items() for name, field in spec.model_fields.items()
    }
    parents = {"hardware", "engine", "engine.loading", "tiers", "links", "policies"}
    assert fields - parents - set(ELSEWHERE) == {row for row in rows if not row.startswith("trace.")}
