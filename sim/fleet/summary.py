"""What replicas that come and go did in a run, for its tables and its summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from policies.fleet.base import ReplicaState
from sim.cluster import Cluster
from sim.quantiles import latency_ms
from sim.tables import numbers, with_columns

ON = (ReplicaState.STARTING, ReplicaState.SERVING, ReplicaState.DRAINING)
"""States that cost money."""


def with_gateway(cluster: Cluster, requests: pa.Table) -> pa.Table:
    """The table of requests with `gateway_wait_s`, a part of queue_s that prefetch_wait_s no longer counts."""
    if cluster.fleet is None:
        return requests
    waits = cluster.fleet.gateway.waits
    served = ~np.isnan(numbers(requests, "finish_s"))
    found = np.array([waits.get(i, 0.0) for i in numbers(requests, "request_id").tolist()])
    fetch = numbers(requests, "prefetch_wait_s")
    fetch = np.where(fetch > 0, fetch - found, fetch)
    place = requests.column_names.index("prefetch_wait_s")
    table = requests.remove_column(place)
    return with_columns(table, {"prefetch_wait_s": fetch, "gateway_wait_s": np.where(served, found, np.nan)})


def fleet_summary(cluster: Cluster) -> dict[str, Any] | None:
    """`summary["fleet"]`: replica-seconds by state until the last request ended, starts and stops, the gateway.

    None where all replicas serve all the time. mean_on, mean_serving: replicas, over time. on_share: of the
    replica-seconds of all, those that cost money.
    """
    fleet = cluster.fleet
    if fleet is None:
        return None
    states = fleet.states
    spans = {state.value: states.total(state) for state in ReplicaState}
    whole, on = sum(spans.values()), states.total(*ON)
    count = len(cluster.replicas)
    waited = np.fromiter(fleet.gateway.waits.values(), np.float64, len(fleet.gateway.waits))
    starts = states.start_s
    return {
        "scaling": fleet.spec.scaling.name,
        "min": fleet.least,
        "max": fleet.most,
        "replica_s": spans,
        "on_share": on / whole if whole else 1.0,
        "mean_on": count * on / whole if whole else float(count),
        "mean_serving": count * spans["serving"] / whole if whole else float(count),
        "gpu_hours": on * cluster.scenario.spec.hardware.parallel.gpus / 3600,
        "starts": states.starts,
        "stops": states.stops,
        "cancelled_starts": states.cancelled,
        "kept": states.kept,
        "start_mean_s": sum(starts) / len(starts) if starts else None,
        "weight_bytes": fleet.weight_bytes,
        "gateway": {
            "requests": len(waited),
            "most_waiting": fleet.gateway.most_waiting,
            "wait_ms": latency_ms(waited),
        },
    }
