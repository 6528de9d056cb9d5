"""Recounts what must hold: bytes conserved, capacity kept, no request lost, no token made up."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sim.cluster import Cluster
from sim.disaggregation_spec import KV_LINK
from sim.hierarchy.route import HOST
from sim.invariants import ensure
from sim.speculation_summary import check_speculation
from sim.tables import numbers


def check_state(cluster: Cluster) -> None:
    """What holds between any two events. Raises InvariantError."""
    for tiers in cluster.tiers:
        for tier in tiers:
            tier.check()
    for replica in cluster.replicas:
        replica.check()
    if cluster.fleet is not None:
        cluster.fleet.check()


def check_end(cluster: Cluster, requests: pa.Table) -> None:
    """What holds when every request is done. Raises InvariantError."""
    cluster.arrivals.check()
    served = cluster.served
    ensure(served.sent == len(cluster.trace) == len(served), "requests were lost between trace and engine")
    for status in served.statuses[1]:
        ensure(status.startswith(("finished", "rejected")), f"a request ended, but it is {status}")
    finished = ~np.isnan(served.column("finish_s"))
    wrong = finished & (served.column("generated") != served.column("output_tokens"))
    ensure(not wrong.any(), f"requests ended with a wrong number of tokens: {served.column('index')[wrong][:5]}")
    for tiers in cluster.tiers:
        for tier in tiers:
            ensure(not tier.pinned and not tier.reserved, f"tier {tier.label}: memory is still held after the run")
    _check_bytes(cluster)
    _check_tokens(cluster, requests)
    _check_handoffs(cluster)


def _check_bytes(cluster: Cluster) -> None:
    """Every byte that left one side arrived at the other."""
    table = cluster.recorder.transfers
    sizes = table.numbers("bytes")
    ensure(sum(e.bytes for e in cluster.links) == int(sizes.sum()), "the transfer table misses bytes")
    counters = {
        name: [t.counters for t in tiers] for name, tiers in zip(cluster.tier_names, cluster.tiers, strict=True)
    }
    lower = [c for name in cluster.tier_names[1:] for c in counters[name]]
    arrived = {name: int(sizes[table.among("dst", name)].sum()) for name in (*cluster.tier_names, HOST)}
    left = {name: int(sizes[table.among("src", name)].sum()) for name in (*cluster.tier_names, HOST)}
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
    ensure(arrived[HOST] == left[HOST], "bytes stayed in a bounce buffer")


def _check_tokens(cluster: Cluster, requests: pa.Table) -> None:
    """Every prompt token was reused or computed, every output token came from a step."""
    columns = {
        n: numbers(requests, n) for n in ("input_tokens", "computed_tokens", "output_tokens", "recomputed_tokens")
    }
    finished = ~np.isnan(numbers(requests, "finish_s"))
    answered = finished & (numbers(requests, "replica") < 0)
    for name in ("computed_tokens", *(f"hit_{tier}_tokens" for tier in cluster.tier_names)):
        ensure(not numbers(requests, name)[answered].any(), f"a request that a cache answered has {name}")
    finished &= ~answered
    hits = sum(numbers(requests, f"hit_{name}_tokens") for name in cluster.tier_names)
    first = columns["computed_tokens"] - columns["recomputed_tokens"]
    ensure(
        bool((hits + first == columns["input_tokens"])[finished].all()),
        "a prompt was not covered exactly once by reused and computed tokens",
    )
    steps = cluster.recorder.steps
    ensure(
        int(steps.numbers("prefill_tokens").sum(dtype=np.int64)) == int(columns["computed_tokens"].sum()),
        "prefill tokens of steps and requests differ",
    )
    decoded = int(np.dot(steps.numbers("decode_seqs").astype(np.int64), steps.numbers("count").astype(np.int64)))
    if cluster.inputs.speculation is not None:
        decoded = check_speculation(cluster, decoded)
    sampled = decoded + int(finished.sum() + cluster.served.column("resumed")[finished].sum())
    ensure(sampled == int(columns["output_tokens"][finished].sum()), "output tokens of steps and requests differ")


def _check_handoffs(cluster: Cluster) -> None:
    """Every byte that a prefill instance sent came to a decode instance, and all KV was sent or was there."""
    apart = cluster.disaggregation
    if apart is None:
        return
    ensure(not apart.under_way, "requests were handed over and never ended")
    for replica in cluster.replicas:
        ensure(not replica.batch.leaving, f"replica {replica.index} still holds KV for others after the run")
    table, done = cluster.recorder.transfers, apart.done
    moved = int(table.numbers("bytes")[table.among("link", KV_LINK)].sum())
    sent = int(done.numbers("bytes").sum())
    ensure(sent == apart.arrived_bytes == moved, "bytes sent to decode instances differ from those that came")
    kept = int(done.numbers("reused").sum()) * cluster.inputs.token_bytes
    prompts = int(cluster.trace.input_tokens[done.numbers("index")].sum()) * cluster.inputs.token_bytes
    ensure(sent + kept == prompts, "KV of prompts was neither sent to decode instances nor there before")
