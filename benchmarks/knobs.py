"""What each knob moves: one knob of a scenario at a time, from one value to another, on a sample of a real trace.

    python benchmarks/knobs.py [--trace mooncake-conversation] [--limit 1500] [--only PART] [--out FILE]

Prints a Markdown table: mean TTFT and TPOT, bytes over all links, and the share of prompt tokens that were reused, by
tier. Two replicas of one H100 each, under load, with host memory, a drive and a remote pool behind them; a knob that
needs other company (a prefetch, a copy method) brings it along, on both sides of its row. It proves nothing by itself:
the tests in tests/sim/test_knobs*.py hold the directions on traces that are made for them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

import hw_profiles
from hw_profiles.errors import InputError
from sim.run import Result
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
MEMORY: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "cxl", "capacity": "512 GiB"}]}
C2C: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "c2c", "capacity": "512 GiB"}]}
TWO: dict[str, Any] = {"tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "1 TiB", "shared": "node"}]}
HBM: dict[str, Any] = {"tiers": [{"name": "hbm"}]}
BACK: dict[str, Any] = {**TWO, "policies": {"offload": "write_back"}}
NODES: dict[str, Any] = {"hardware": {**BASE["hardware"], "gpus_per_node": 2}}
PROFILE = "hardware.profile"


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
    Knob("tiers.hbm.capacity", ("8 GiB", "32 GiB")),
    Knob("tiers.dram.capacity", ("0 B", "128 GiB", "512 GiB", "2 TiB")),
    Knob("tiers.ssd.capacity", ("0 B", "256 GiB", "1 TiB")),
    Knob("tiers.remote.capacity", ("0 B", "512 GiB", "2 TiB")),
    Knob("tiers.cxl.capacity", ("128 GiB", "512 GiB"), MEMORY),
    Knob("tiers.c2c.capacity", ("128 GiB", "512 GiB"), C2C),
    # links
    Knob("links.pcie_h2d.bandwidth", ("50 GB/s", "12.5 GB/s", "3 GB/s")),
    Knob("links.pcie_d2h.bandwidth", ("50 GB/s", "12.5 GB/s", "3 GB/s")),
    Knob("links.pcie_h2d.latency", ("0 s", "10 us", "100 us")),
    Knob("links.pcie_d2h.latency", ("0 s", "10 us", "100 us")),
    Knob("links.pcie_joint.bandwidth", ("80 GB/s", "10 GB/s")),
    Knob("links.host_root.bandwidth", ("400 GB/s", "25 GB/s")),
    Knob("links.dram.bandwidth", ("400 GB/s", "25 GB/s", "6 GB/s")),
    Knob("links.ssd_read.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.ssd_write.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.ssd_read.latency", ("0 s", "100 us", "10 ms")),
    Knob("links.ssd_write.latency", ("0 s", "100 us", "10 ms")),
    Knob("links.remote_read.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.remote_write.bandwidth", ("25 GB/s", "6 GB/s", "1.5 GB/s")),
    Knob("links.remote_read.latency", ("0 s", "100 us", "10 ms")),
    Knob("links.remote_write.latency", ("0 s", "100 us", "10 ms")),
    Knob("links.cxl_read.bandwidth", ("50 GB/s", "12.5 GB/s"), MEMORY),
    Knob("links.cxl_write.bandwidth", ("50 GB/s", "12.5 GB/s"), MEMORY),
    Knob("links.cxl_read.latency", ("0 s", "10 us"), MEMORY),
    Knob("links.c2c_read.bandwidth", ("400 GB/s", "50 GB/s"), C2C),
    Knob("links.c2c_write.bandwidth", ("400 GB/s", "50 GB/s"), C2C),
    Knob("links.pcie_h2d.chunk", ("1 GiB", "16 MiB", "1 MiB")),
    # what tiers are made of, and how they share
    Knob("tiers.ssd.device", ("nvme-gen4", "nvme-gen5-raid4")),
    Knob("tiers.ssd.direct", (False, True)),
    Knob("tiers.remote.device", ("rdma-100g", "rdma-200g", "rdma-400g")),
    Knob("tiers.dram.shared", ("private", "node"), TWO),
    Knob("tiers.remote.shared", ("private", "node", "cluster"), NODES),
    Knob("tiers.dram.inclusive", (True, False), BACK),
    Knob("tiers.hbm.leaf_only", (False, True), HBM),
    Knob("tiers.dram.leaf_only", (False, True), TWO),
    # copies
    Knob("links.pcie_h2d.method + links.pcie_d2h.method", ("loop", "batch", "kernel"), {**TWO}),
    Knob("engine.kv_layout", ("block", "layer", "layer_kv"), {**TWO}),
    Knob("interference.h2d + interference.d2h", (0.0, 1.5, 6.0)),
    # loading
    Knob("engine.loading.mode", ("blocking", "layerwise")),
    Knob("engine.loading.choose", ("always", "by_cost")),
    Knob("policies.prefetch", ("none", {"name": "on_arrival", "stop": "best_effort"})),
    Knob("policies.prefetch", ("none", {"name": "on_arrival", "stop": "wait_complete"})),
    Knob("policies.prefetch", ("none", {"name": "on_arrival", "stop": "timeout", "timeout": "100 ms"})),
    Knob("policies.prefetch", ("none", {"name": "popularity", "into": "dram"})),
    Knob("policies.prefetch", ("none", {"name": "next_turn", "into": "dram", "estimate": "mean"})),
    # policies
    *eviction("fifo lfu clock sieve s3fifo arc 2q lru_k gdsf length_aware workload_aware belady", HBM),
    Knob("policies.eviction", ("lru", {"name": "ttl", "ttl": "60 s"}), HBM),
    Knob("policies.admission", ("always", {"name": "by_size", "most_tokens": 256}, "second_hit")),
    Knob("policies.offload", ("none", "write_back", "write_through_selective", "by_cost", "write_through")),
    # engine, cluster, load
    Knob("engine.max_num_seqs", (8, 32, 256)),
    Knob("engine.max_num_batched_tokens", (512, 2048, 8192)),
    Knob("engine.gpu_memory_utilization", (0.4, 0.9)),
    Knob("engine.host_time", ("0 s", "1 ms", "4 ms")),
    Knob("engine.block_tokens", (16, 512)),
    Knob("engine.l2_prefetch", ("0 B", "4 MB")),
    Knob("engine.weights_dtype", ("bf16", "fp8", "int4")),
    Knob("engine.kv_dtype", ("bf16", "fp8", "int4")),
    Knob("engine.graphs", (True, False)),
    Knob("hardware.tp", (1, 2, 4)),
    Knob("hardware.pp", (1, 2, 4)),
    Knob("hardware.profile", ("a100-80", "h100-sxm")),
    Knob("hardware.replicas", (3, 4, 8)),
    Knob("hardware.gpus_per_node", (1, 4), NODES),
    Knob("routing", ("round_robin", "least_loaded", "prefix_aware"), NODES),
    Knob("trace.rate_scale", (0.25, 1.0, 2.0)),
    Knob("seed", (0, 1)),
)


def run(knob: Knob, value: Any, trace: Mapping[str, Any], folder: Path) -> Result:
    """One run with the knob at a value. Raises InputError, as for a knob that this version does not have."""
    scenario = Scenario.from_dict({**BASE, "trace": dict(trace), **knob.sections})
    for path in knob.path.split(" + "):
        if path.startswith("interference."):
            scenario = scenario.set(PROFILE, profile_with(path, value, scenario.spec.hardware.profile, folder))
        else:
            scenario = scenario.set(path, value)
    return scenario.run()


def profile_with(path: str, factor: float, name: str, folder: Path) -> str:
    """A copy of a profile with another factor of interference; its path."""
    source = Path(name) if name.endswith(".yaml") else Path(hw_profiles.__file__).parent / "profiles" / f"{name}.yaml"
    raw = yaml.safe_load(source.read_text())
    raw["interference"][path.partition(".")[2]] |= {"v": factor, "lo": 0.0, "hi": max(10.0, factor)}
    made = folder / f"{source.stem}-{path}-{factor}.yaml"
    made.write_text(yaml.safe_dump(raw))
    return str(made)


def cells(result: Result) -> tuple[str, ...]:
    """TTFT and TPOT (ms), GiB over all links, and reused tokens by tier (per cent)."""
    summary = result.summary
    prefix = summary["prefix"]
    moved = sum(link["bytes"] for link in summary["links"].values())
    hits = {tier: 100 * tokens / prefix["input_tokens"] for tier, tokens in prefix["hit_tokens"].items()}
    return (
        f"{summary['ttft_ms']['mean']:,.1f}",
        f"{summary['tpot_ms']['mean']:.2f}",
        f"{moved / 2**30:,.0f}",
        f"{sum(hits.values()):.1f} ({', '.join(f'{tier} {share:.1f}' for tier, share in hits.items())})",
    )


HEADS = ("knob", "from", "to", "TTFT mean, ms", "TPOT mean, ms", "moved, GiB", "reused, %")


def rows(trace: Mapping[str, Any], only: str) -> Iterator[tuple[str, ...]]:
    """The lines of the table: each value of a knob against the one before it."""
    with TemporaryDirectory() as folder:
        for knob in KNOBS:
            if only not in f"{knob.path} {knob.values}":
                continue
            try:
                found = [cells(run(knob, value, trace, Path(folder))) for value in knob.values]
            except InputError as error:
                print(f"{knob.path}: {error}", file=sys.stderr)
                continue
            names = [shown(value) for value in knob.values]
            for i in range(1, len(names)):
                changes = (f"{a} → {b}" if a != b else f"{a}, same" for a, b in zip(*found[i - 1 : i + 1], strict=True))
                yield (knob.path, names[i - 1], names[i], *changes)


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
