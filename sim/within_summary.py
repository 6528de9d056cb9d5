"""What policies within a sequence did in a run, for its summary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sim.cluster import Cluster
from sim.sequence import policies_of

SAMPLE = 64
"""Requests whose attention coverage is looked at, evenly over the trace."""


def within(cluster: Cluster) -> dict[str, Any] | None:
    """`summary["within"]`: the policies, what steps moved over the host links, what token importance comes from.

    h2d_bytes, d2h_bytes: over all replicas, toward the GPUs and away from them. move_wait_s: what layers waited for
    them. coverage: by policy that drops tokens, the share of the attention mass that it keeps at the end of a request,
    the mean of up to SAMPLE requests, in a layer half way up that sees everything; says nothing of the quality of
    answers. None if there are no such policies.
    """
    planned = cluster.inputs.planned
    if planned is None or not cluster.scenario.spec.policies.within:
        return None
    coverage = {name: _mean_coverage(cluster, covers) for name, covers in planned.covers}
    accounts = [replica.accounts for replica in cluster.replicas]
    return {
        "policies": [{"family": family, **named.model_dump()} for family, named in policies_of(cluster.scenario)],
        "h2d_bytes": round(sum(a.moved_h2d for a in accounts)),
        "d2h_bytes": round(sum(a.moved_d2h for a in accounts)),
        "move_wait_s": sum(a.times.kv_move_s for a in accounts),
        "coverage": coverage,
        "importance": planned.importance(),
        "assumptions": list(planned.plan.assumptions),
    }


def _mean_coverage(cluster: Cluster, covers: Callable[[float, float], float]) -> float:
    trace = cluster.trace
    rows = np.unique(np.linspace(0, len(trace) - 1, SAMPLE).round().astype(int))
    prompts, outputs = trace.input_tokens[rows], trace.output_tokens[rows]
    return float(np.mean([covers(float(p + o), float(p)) for p, o in zip(prompts, outputs, strict=True)]))


def add_to_links(cluster: Cluster, links: dict[str, Any], duration: float) -> None:
    """Count what steps moved among the bytes of the GPUs' host links; their busy time at the links' full rate."""
    accounts = [replica.accounts for replica in cluster.replicas]
    for way, moved in (("h2d", [a.moved_h2d for a in accounts]), ("d2h", [a.moved_d2h for a in accounts])):
        if not any(moved):
            continue
        name = f"pcie_{way}"
        model: Any = cluster.inputs.links[name]
        busy = sum(moved) / model.beta
        count = len(accounts)
        links[name] = {
            "count": count,
            "bytes": round(sum(moved)),
            "busy_s": busy,
            "utilization": busy / (duration * count) if duration else 0.0,
            "queue_p99_ms": 0.0,
            "transfers": 0,
        }
