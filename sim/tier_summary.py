"""Tiers, links and prefetches of a run, summed over equal ones for the summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sim.cluster import Cluster
from sim.disaggregation_spec import KV_LINK
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.tier import Tier
from sim.link_inputs import GPU_LINKS, own_links


def tier_sums(tiers: list[Tier]) -> dict[str, Any]:
    """Sums over the tiers of one name (one per replica, per node, or one for the cluster)."""
    counters = [tier.counters for tier in tiers]
    left = sum(tier.unused for tier in tiers)
    return {
        "count": len(tiers),
        "capacity_bytes": sum(tier.capacity for tier in tiers),
        "peak_bytes": sum(c.peak_bytes for c in counters),
        "stored_bytes": sum(c.stored_bytes for c in counters),
        "loaded_bytes": sum(c.loaded_bytes for c in counters),
        "evicted_blocks": sum(c.evicted_blocks for c in counters),
        "evicted_bytes": sum(c.evicted_bytes for c in counters),
        "replaced_bytes": sum(c.replaced_bytes for c in counters),
        "never_loaded_bytes": sum(c.never_loaded_bytes for c in counters) + left,
        "moved_bytes": sum(c.moved_bytes for c in counters),
        "passed_bytes": sum(c.passed_bytes for c in counters),
        "expired_blocks": sum(c.expired_blocks for c in counters),
        "refused_bytes": sum(c.refused_bytes for c in counters),
        "prefetched_bytes": sum(c.prefetched_bytes for c in counters),
        "prefetch_used_bytes": sum(c.prefetch_used_bytes for c in counters),
        "prefetch_late_bytes": sum(c.prefetch_late_bytes for c in counters),
    }


def prefetch_sums(policy: str, tiers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over tiers of what prefetches brought; 0 for a policy that brought nothing."""
    fetched, used, late = (
        sum(tier[key] for tier in tiers) for key in ("prefetched_bytes", "prefetch_used_bytes", "prefetch_late_bytes")
    )
    wasted = fetched - used
    return {
        "policy": policy,
        "fetched_bytes": fetched,
        "used_bytes": used,
        "wasted_bytes": wasted,
        "late_bytes": late,
    }


def link_sums(cluster: Cluster, duration: float) -> dict[str, Any]:
    """`summary["links"]`: copies by name of the link, then the bandwidths that links share. duration: s."""
    transfers = cluster.recorder.transfers
    waited = transfers.numbers("start_s") - transfers.numbers("queued_s")
    result = {}
    for name in _link_order(cluster):
        links: list[CopyEngine] = [link for link in cluster.links if link.name == name]
        busy = sum(link.busy_s for link in links)
        queue = waited[transfers.among("link", name)]
        result[name] = {
            "count": len(links),
            "bytes": sum(link.bytes for link in links),
            "busy_s": busy,
            "utilization": busy / (duration * len(links)) if duration else 0.0,
            "queue_p99_ms": float(np.percentile(queue, 99)) * 1e3 if len(queue) else 0.0,
            "transfers": len(queue),
        }
    for name in dict.fromkeys(name for name, _ in cluster.topology.ways.resources):
        shared = [r for (kind, _), r in cluster.topology.ways.resources.items() if kind == name]
        moved, capacity = sum(r.bytes for r in shared), sum(r.capacity for r in shared)
        result[name] = {
            "count": len(shared),
            "bytes": moved,
            "capacity_bytes_per_s": capacity,
            "utilization": moved / (capacity * duration) if duration else 0.0,
        }
    return result


def _link_order(cluster: Cluster) -> list[str]:
    """Names of the links in use, the GPU's own first, then by tier; toward the GPU before away from it."""
    used = {link.name for link in cluster.links}
    return [name for name in (*GPU_LINKS, *own_links(cluster.scenario.spec), KV_LINK) if name in used]
