"""What each knob moves: one knob of a scenario at a time, from one value to another, on a sample of a real trace.

    python benchmarks/knobs.py [--trace mooncake-conversation] [--limit 1500] [--only PART]

Prints a Markdown table: mean TTFT and TPOT, bytes over all links, and the share of prompt tokens that were reused, by
tier. Four H100s of one node, under load, with host memory, drives and a remote pool behind them; a knob that needs
other company (a single tier, a copy method, conversations) brings it along, on both sides of its row. It proves nothing
by itself: the tests in tests/sim/test_knobs*.py hold the directions on traces that are made for them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from hw_profiles.documents import PROFILES, find, read_document
from hw_profiles.errors import InputError
from sim.result import Result
from sim.scenario import Scenario

BASE: dict[str, Any] = {
    "schema": "kvsim-scenario/1",
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm", "replicas": 4, "gpus_per_node": 4},
    "tiers": [
        {"name": "hbm"},
        {"name": "dram", "capacity": "256 GiB", "shared": "node"},
        {"name": "ssd", "capacity": "512 GiB", "shared": "node", "device": "nvme-gen5-raid4"},
        {"name": "remote", "capacity": "2 TiB", "shared": "cluster"},
    ],
    "policies": {"eviction": "lru", "offload": "write_through"},
}
HBM: dict[str, Any] = {"tiers": [{"name": "hbm"}]}
TWO: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "1 TiB", "shared": "node"}]}
TIGHT: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "256 GiB", "shared": "node"}]}
NEVER_HIT_FIRST: dict[str, Any] = {**TIGHT, "policies": {"eviction": "gdsf"}}
MEMORY: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "cxl", "capacity": "512 GiB"}]}
C2C: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "c2c", "capacity": "512 GiB"}]}
SSD: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "ssd", "capacity": "2 TiB", "shared": "node"}]}
POOL: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "remote", "capacity": "2 TiB"}]}
OWN: dict[str, Any] = {
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "256 GiB"}],
    "policies": {"offload": "write_back"},
}
NODES: dict[str, Any] = {"hardware": {**BASE["hardware"], "gpus_per_node": 2}}
EIGHT: dict[str, Any] = {"hardware": {**BASE["hardware"], "replicas": 8, "gpus_per_node": 8}}
SLOW_LINK: dict[str, Any] = {**TWO, "links": {"pcie_h2d": {"bandwidth": "3 GB/s"}}}
MOE: dict[str, Any] = {**TWO, "model": "mixtral-8x7b", "hardware": {**BASE["hardware"], "replicas": 2, "tp": 2}}
SLIDING: dict[str, Any] = {**TWO, "model": "gpt-oss-120b", "hardware": {**BASE["hardware"], "replicas": 2, "tp": 2}}
TALK: dict[str, Any] = {
    "trace": {"clients": {"clients": 30, "rounds": 5, "first_input_tokens": 8000, "think_time": "20 s"}},
    "hardware": {**BASE["hardware"], "replicas": 1},
    "tiers": [{"name": "hbm", "capacity": "24 GiB"}, {"name": "dram", "capacity": "1 TiB"}],
}
"""Closed-loop conversations, which know when the next turn comes, of one replica, which is where it comes."""
SHARED: dict[str, Any] = {**TWO, "trace": {"name": "quickstart", "limit": 800}}
"""Prompts that begin alike."""
PROFILE = "hardware.profile"
NOTES: dict[str, str] = {
    "tiers.dram.capacity": "drives of 25 GB/s stand in for it; see `reused` for what comes from where",
    "tiers.ssd.capacity": "one that is no larger than the host memory before it holds nothing else",
    "tiers.remote.capacity": "one that is no larger than the drives before it holds nothing else",
    "links.pcie_d2h": "stores are waited for only when they fall behind",
    "links.ssd_write.latency": "copies to drives are on their way at the same time; host memory has the blocks",
    "links.remote_write.latency": "copies to the pool are on their way at the same time; host memory has the blocks",
    "links.cxl_write": "stores are waited for only when they fall behind",
    "links.c2c_write": "stores are waited for only when they fall behind",
    "tiers.dram.inclusive": "what is loaded is given up, and stored again when HBM evicts it",
    "policies.prefetch none {name: on_arrival, stop: best_effort}": "who queues for a few milliseconds only computes "
    "what is not there yet, where a load would have been waited for",
    "policies.prefetch none {name: on_arrival, stop: wait_complete}": "fetched whole, then loaded: a load without a "
    "prefetch is a pipeline over both links",
    "policies.prefetch none {name: on_arrival, stop: timeout": "between the two above",
    "policies.prefetch none {name: popularity": "into free HBM only",
    "policies.eviction lru length_aware": "more tokens, but early ones, which are cheaper to compute",
    "policies.eviction lru workload_aware": "as length_aware",
    "policies.offload none write_back": "steps wait for the memory of what is being stored",
    "policies.offload write_back write_through_selective": "few blocks are hit before they leave HBM",
    "engine.max_num_seqs 32 256": "never so many at a time",
    "engine.expert_skew": "fewer experts to read per step",
    "engine.graphs": "steps are longer than their launches",
    "engine.loading.choose": "over a link of 3 GB/s much is computed sooner than loaded",
}
"""What a row is to be read with, by the start of its path and values."""


class Knob(NamedTuple):
    """A knob, the values that it takes in turn, and the sections of the scenario that differ from BASE."""

    path: str
    """Dotted path; several joined by " + " are set together."""
    values: tuple[Any, ...]
    sections: Mapping[str, Any] = {}


def eviction(names: str, sections: Mapping[str, Any]) -> Iterator[Knob]:
    """LRU against each of the policies."""
    for name in names.split():
        yield Knob("policies.eviction", ("lru", name), sections)


KNOBS: tuple[Knob, ...] = (
    # sizes
    Knob("tiers.hbm.capacity", ("20 GiB", "32 GiB", "64 GiB")),
    Knob("tiers.dram.capacity", ("0 B", "128 GiB", "512 GiB", "2 TiB")),
    Knob("tiers.ssd.capacity", ("0 B", "256 GiB", "1 TiB")),
    Knob("tiers.remote.capacity", ("0 B", "512 GiB", "2 TiB")),
    Knob("tiers.cxl.capacity", ("128 GiB", "512 GiB"), MEMORY),
    Knob("tiers.c2c.capacity", ("128 GiB", "512 GiB"), C2C),
    # links
    Knob("links.pcie_h2d.bandwidth", ("50 GB/s", "12.5 GB/s", "3 GB/s")),
    Knob("links.pcie_d2h.bandwidth", ("50 GB/s", "12.5 GB/s", "1 GB/s")),
    Knob("links.pcie_h2d.latency", ("0 s", "10 us", "100 us")),
    Knob("links.pcie_d2h.latency", ("0 s", "1 ms", "2 ms")),
    Knob("links.pcie_joint.bandwidth", ("80 GB/s", "10 GB/s")),
    Knob("links.host_root.bandwidth", ("400 GB/s", "25 GB/s")),
    Knob("links.dram.bandwidth", ("400 GB/s", "25 GB/s", "6 GB/s")),
    Knob("links.ssd_read.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.ssd_write.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.ssd_read.latency", ("0 s", "10 ms", "100 ms")),
    Knob("links.ssd_write.latency", ("0 s", "100 ms", "10 s")),
    Knob("links.remote_read.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.remote_write.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.remote_read.latency", ("0 s", "10 ms", "100 ms")),
    Knob("links.remote_write.latency", ("0 s", "100 ms", "10 s")),
    Knob("links.cxl_read.bandwidth", ("50 GB/s", "12.5 GB/s"), MEMORY),
    Knob("links.cxl_write.bandwidth", ("50 GB/s", "1.5 GB/s"), MEMORY),
    Knob("links.cxl_read.latency", ("0 s", "10 us"), MEMORY),
    Knob("links.c2c_read.bandwidth", ("400 GB/s", "50 GB/s"), C2C),
    Knob("links.c2c_write.bandwidth", ("400 GB/s", "1.5 GB/s"), C2C),
    Knob("links.pcie_h2d.chunk", ("1 GiB", "1 MiB", "64 KiB")),
    # what tiers are made of, and how they share
    Knob("tiers.ssd.device", ("nvme-gen4", "nvme-gen5-raid4")),
    Knob("tiers.ssd.direct", (False, True), SSD),
    Knob("tiers.ssd.block_tokens", (16, 512), SSD),
    Knob("tiers.remote.device", ("rdma-100g", "rdma-200g", "rdma-400g")),
    Knob("tiers.dram.shared", ("private", "node"), TWO),
    Knob("tiers.remote.shared", ("private", "node", "cluster"), {**POOL, **NODES}),
    Knob("tiers.dram.inclusive", (True, False), OWN),
    Knob("tiers.hbm.leaf_only + tiers.dram.leaf_only", (False, True), NEVER_HIT_FIRST),
    # copies
    Knob("links.pcie_h2d.method + links.pcie_d2h.method", ("loop", "batch", "kernel"), TWO),
    Knob("engine.kv_layout", ("block", "layer", "layer_kv"), TWO),
    Knob("interference.h2d + interference.d2h", (0.0, 1.5, 6.0)),
    # loading
    Knob("engine.loading.mode", ("blocking", "layerwise")),
    Knob("engine.loading.choose", ("always", "by_cost"), SLOW_LINK),
    Knob("policies.prefetch", ("none", {"name": "on_arrival", "stop": "best_effort"})),
    Knob("policies.prefetch", ("none", {"name": "on_arrival", "stop": "wait_complete"})),
    Knob("policies.prefetch", ("none", {"name": "on_arrival", "stop": "timeout", "timeout": "100 ms"})),
    Knob("policies.prefetch", ("none", {"name": "next_turn", "lead": "500 ms"}), TALK),
    Knob("policies.prefetch", ("none", {"name": "next_turn", "lead": "500 ms", "estimate": "mean"}), TALK),
    Knob("policies.prefetch", ("none", {"name": "popularity", "most": 64}), SHARED),
    # policies
    *eviction("fifo lfu clock sieve s3fifo arc 2q lru_k gdsf length_aware workload_aware belady", TIGHT),
    Knob("policies.eviction", ("lru", {"name": "ttl", "ttl": "60 s"}), TWO),
    Knob("policies.admission", ("always", "by_size", "second_hit")),
    Knob("policies.offload", ("none", "write_back", "write_through_selective", "write_through")),
    Knob("policies.offload", ("write_through", "by_cost", {"name": "by_cost", "weight": 10})),
    # engine, cluster, load
    Knob("engine.max_num_seqs", (8, 32, 256)),
    Knob("engine.max_num_batched_tokens", (512, 2048, 8192)),
    Knob("engine.gpu_memory_utilization", (0.4, 0.9), HBM),
    Knob("engine.host_time", ("0 s", "1 ms", "4 ms")),
    Knob("engine.block_tokens", (16, 512), TWO),
    Knob("engine.l2_prefetch", ("0 B", "4 MB", "100 MB"), HBM),
    Knob("engine.graphs", (True, False), HBM),
    Knob("engine.weights_dtype", ("bf16", "fp8_block"), HBM),
    Knob("engine.kv_dtype", ("bf16", "fp8"), TWO),
    Knob("engine.expert_skew", (0.0, 2.0), MOE),
    Knob("engine.hybrid_kv_cache", (False, True), SLIDING),
    Knob("hardware.profile", ("a100-80", "h100-sxm"), EIGHT),
    Knob("hardware.replicas", (3, 4, 8)),
    Knob("hardware.gpus_per_node", (1, 4), {**TWO, **NODES}),
    Knob("hardware.tp", (1, 2), HBM),
    Knob("hardware.pp", (1, 2), HBM),
    Knob("hardware.interconnect", ("400 GB/s", "25 GB/s"), MOE),
    Knob("hardware.expert_parallel", (False, True), MOE),
    Knob("routing", ("round_robin", "least_loaded", "prefix_aware", "cache_aware"), HBM),
    Knob("trace.rate_scale", (0.25, 1.0, 2.0)),
    Knob("seed", (0, 1)),
)


def turned(knob: Knob, value: Any, trace: Mapping[str, Any], folder: Path) -> Scenario:
    """The scenario with the knob at a value. Raises InputError, as for a knob that this version does not have."""
    scenario = Scenario.from_dict({**BASE, "trace": dict(trace), **knob.sections})
    for path in knob.path.split(" + "):
        if path.startswith("interference."):
            scenario = scenario.set(PROFILE, profile_with(path, value, scenario.spec.hardware.profile, folder))
        else:
            scenario = scenario.set(path, value)
    return scenario


def profile_with(path: str, factor: float, name: str, folder: Path) -> str:
    """A copy of a profile with another factor of interference; its path."""
    raw, _ = read_document(find(name, PROFILES, "profile"))
    raw["interference"][path.partition(".")[2]] |= {"v": factor, "lo": 0.0, "hi": max(10.0, factor)}
    made = folder / f"{Path(name).stem}-{path}-{factor}.yaml"
    made.write_text(yaml.safe_dump(raw, sort_keys=False))
    return str(made)


def cells(result: Result) -> tuple[str, ...]:
    """TTFT and TPOT (ms), GiB over all links, and reused tokens by tier (per cent)."""
    summary = result.summary
    prefix = summary["prefix"]
    moved = sum(link["bytes"] for link in summary["links"].values() if "busy_s" in link)  # not what links share
    hits = {tier: 100 * tokens / prefix["input_tokens"] for tier, tokens in prefix["hit_tokens"].items()}
    return (
        f"{summary['ttft_ms']['mean']:,.1f}",
        f"{summary['tpot_ms']['mean']:.2f}",
        f"{moved / 2**30:,.0f}",
        f"{sum(hits.values()):.1f} ({', '.join(f'{tier} {share:.1f}' for tier, share in hits.items())})",
    )


HEADS = ("knob", "from", "to", "TTFT mean, ms", "TPOT mean, ms", "moved, GiB", "reused, %", "note")


def rows(trace: Mapping[str, Any], only: str) -> Iterator[tuple[str, ...]]:
    """The lines of the table: each value of a knob against the one before it."""
    ran: dict[str, tuple[str, ...]] = {}  # several knobs begin with the same run
    with TemporaryDirectory() as folder:
        for knob in KNOBS:
            if only not in f"{knob.path} {knob.values}":
                continue
            found = []
            try:
                for value in knob.values:
                    scenario = turned(knob, value, trace, Path(folder))
                    name = yaml.safe_dump(scenario.document)
                    ran[name] = ran.get(name) or cells(scenario.run())
                    found.append(ran[name])
            except InputError as error:
                print(f"{knob.path}: {error}", file=sys.stderr)
                continue
            names = [shown(value) for value in knob.values]
            for i in range(1, len(names)):
                changes = (f"{a} → {b}" if a != b else f"{a}, same" for a, b in zip(*found[i - 1 : i + 1], strict=True))
                row = (knob.path, names[i - 1], names[i])
                notes = (note for start, note in NOTES.items() if " ".join(row).startswith(start))
                yield (*row, *changes, next(notes, ""))


def shown(value: Any) -> str:
    """A value as in YAML, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)
    return str(text.removesuffix("...\n").strip())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", default="mooncake-conversation")
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--only", default="", metavar="PART", help="knobs whose path or values contain this text")
    options = parser.parse_args()
    trace = {"name": options.trace, "limit": options.limit}
    if options.trace == "mooncake-conversation":
        trace["spread_arrivals"] = "3 s"  # its arrivals are quantised to 3 s
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for row in rows(trace, options.only):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
