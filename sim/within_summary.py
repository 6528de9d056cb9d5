"""What policies within a sequence did in a run, for its summary."""

from __future__ import annotations

from typing import Any

from sim.cluster import Cluster
from sim.sequence import policies_of


def within(cluster: Cluster) -> dict[str, Any] | None:
    """`summary["within"]`: the policies, what steps moved over the host links, what token importance comes from.

    h2d_bytes, d2h_bytes: over all replicas, toward the GPUs and away from them. move_wait_s: what layers waited for
    them. None if there are no such policies.
    """
    planned = cluster.inputs.planned
    if planned is None:
        return None
    accounts = [replica.accounts for replica in cluster.replicas]
    return {
        "policies": [{"family": family, **named.model_dump()} for family, named in policies_of(cluster.scenario)],
        "h2d_bytes": round(sum(a.moved_h2d for a in accounts)),
        "d2h_bytes": round(sum(a.moved_d2h for a in accounts)),
        "move_wait_s": sum(a.times.kv_move_s for a in accounts),
        "importance": planned.importance,
        "assumptions": list(planned.plan.assumptions),
    }


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
