"""Recounts what must hold: bytes conserved, capacity kept, no request lost, no token made up."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sim.cluster import Cluster
from sim.hierarchy.route import HOST
from sim.invariants import ensure
from sim.tables import numbers


def check_state(cluster: Cluster) -> None:
    """What holds between any two events. Raises InvariantError."""
    for tiers in cluster.tiers:
        for tier in tiers:
            tier.check()
    for replica in cluster.replicas:
        replica.check()


def check_end(cluster: Cluster, requests: pa.Table) -> None:
    """What holds when every request is done. Raises InvariantError."""
    cluster.arrivals.check()
    ensure(len(cluster.sequences) == len(cluster.trace), "requests were lost between trace and engine")
    for seq in cluster.sequences:
        ensure(
            seq.status == "finished" or seq.status.startswith("rejected"),
            f"request {seq.index} is neither finished nor rejected",
        )
        if seq.status == "finished":
            ensure(seq.generated == seq.output_tokens, f"request {seq.index} ended with a wrong number of tokens")
    for tiers in cluster.tiers:
        for tier in tiers:
            ensure(not tier.pinned and not tier.reserved, f"tier {tier.label}: memory is still held after the run")
    _check_bytes(cluster)
    _check_tokens(cluster, requests)


def _check_bytes(cluster: Cluster) -> None:
    """Every byte that left one side arrived at the other."""
    table = cluster.recorder.transfers.arrays()
    sizes, sources, targets = np.asarray(table["bytes"]), np.asarray(table["src"]), np.asarray(table["dst"])
    ensure(sum(e.bytes for e in cluster.links) == int(sizes.sum()), "the transfer table misses bytes")
    counters = {
        name: [t.counters for t in tiers] for name, tiers in zip(cluster.tier_names, cluster.tiers, strict=True)
    }
    lower = [c for name in cluster.tier_names[1:] for c in counters[name]]
    arrived = {name: int(sizes[targets == name].sum()) for name in cluster.tier_names}
    left = {name: int(sizes[sources == name].sum()) for name in cluster.tier_names}
    stayed = sum(c.prefetched_bytes for c in lower)
    ensure(
        arrived[cluster.tier_names[0]] + stayed == sum(c.loaded_bytes for c in lower),
        "loaded bytes differ from those that came to HBM, or were fetched into a tier before it",
    )
    for name in cluster.tier_names[1:]:
        stored = sum(c.stored_bytes for c in counters[name])
        passed = sum(c.passed_bytes for c in counters[name])
        ensure(arrived[name] == stored + passed, f"bytes stored in {name} differ from those on the links to it")
        loaded = sum(c.loaded_bytes for c in counters[name])
        ensure(left[name] >= loaded + passed, f"bytes loaded from {name} differ from those on the links from it")
    through = int(sizes[targets == HOST].sum()) - int(sizes[sources == HOST].sum())
    ensure(through == 0, "bytes stayed in a bounce buffer")


def _check_tokens(cluster: Cluster, requests: pa.Table) -> None:
    """Every prompt token was reused or computed, every output token came from a step."""
    columns = {
        n: numbers(requests, n) for n in ("input_tokens", "computed_tokens", "output_tokens", "recomputed_tokens")
    }
    finished = ~np.isnan(numbers(requests, "finish_s"))
    hits = sum(numbers(requests, f"hit_{name}_tokens") for name in cluster.tier_names)
    first = columns["computed_tokens"] - columns["recomputed_tokens"]
    ensure(
        bool((hits + first == columns["input_tokens"])[finished].all()),
        "a prompt was not covered exactly once by reused and computed tokens",
    )
    steps = cluster.recorder.steps.arrays()
    ensure(
        int(np.sum(steps["prefill_tokens"])) == int(columns["computed_tokens"].sum()),
        "prefill tokens of steps and requests differ",
    )
    decoded = int(np.sum(np.asarray(steps["decode_seqs"]) * np.asarray(steps["count"])))
    sampled = decoded + sum(1 + s.resumed for s in cluster.sequences if s.status == "finished")
    ensure(sampled == int(columns["output_tokens"][finished].sum()), "output tokens of steps and requests differ")
