"""What replicas that come and go did in a run, for its tables and its summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from policies.fleet.base import ReplicaState
from sim.cluster import Cluster
from sim.fleet.pool import Pool
from sim.fleet.pool_summary import pool_summary, pool_time
from sim.quantiles import latency_ms
from sim.tables import numbers, with_columns
from sim.time_split import time_split

ON = (ReplicaState.STARTING, ReplicaState.SERVING, ReplicaState.DRAINING)
"""States that cost money."""


def with_gateway(cluster: Cluster, requests: pa.Table) -> pa.Table:
    """The table of requests with `gateway_wait_s`, a part of queue_s that prefetch_wait_s no longer counts."""
    if cluster.fleet is None:
        return requests
    waits = cluster.fleet.waits
    served = ~np.isnan(numbers(requests, "finish_s"))
    found = np.array([waits.get(i, 0.0) for i in numbers(requests, "request_id").tolist()])
    fetch = numbers(requests, "prefetch_wait_s")
    fetch = np.where(fetch > 0, fetch - found, fetch)
    place = requests.column_names.index("prefetch_wait_s")
    table = requests.remove_column(place)
    return with_columns(table, {"prefetch_wait_s": fetch, "gateway_wait_s": np.where(served, found, np.nan)})


def fleet_summary(cluster: Cluster, requests: pa.Table) -> dict[str, Any] | None:
    """`summary["fleet"]`: replica-seconds by state until the last request ended, starts and stops, the gateway.

    Of several models also what each of them did (sim.fleet.pool_summary), and replicas are instances.
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
    waited = np.fromiter(fleet.waits.values(), np.float64, len(fleet.waits))
    starts = states.start_s
    several = pool_summary(fleet, requests) if isinstance(fleet, Pool) else {}
    gpus = cluster.scenario.spec.hardware.parallel.gpus
    if isinstance(fleet, Pool):  # the GPUs are there whoever runs on them
        count = len(fleet.life.running)
        on_share, gpu_hours = 1.0, count * sum(states.seconds[0].values()) / 3600
        mean_on, mean_serving = count * several["gpu_share"], float(count) * several["gpu_share"]
    else:
        on_share, gpu_hours = on / whole if whole else 1.0, on * gpus / 3600
        mean_on = count * on / whole if whole else float(count)
        mean_serving = count * spans["serving"] / whole if whole else float(count)
    return {
        "scaling": fleet.spec.scaling.name,
        "min": fleet.least,
        "max": fleet.most,
        "replica_s": spans,
        "on_share": on_share,
        "mean_on": mean_on,
        "mean_serving": mean_serving,
        "gpu_hours": gpu_hours,
        "starts": states.starts,
        "stops": states.stops,
        "cancelled_starts": states.cancelled,
        "kept": states.kept,
        "start_mean_s": sum(starts) / len(starts) if starts else None,
        "weight_bytes": fleet.weight_bytes,
        "gateway": {
            "requests": len(waited),
            "most_waiting": fleet.most_waiting,
            "wait_ms": latency_ms(waited),
        },
        **several,
    }


def replica_time(cluster: Cluster, steps: pa.Table, span_s: float) -> dict[str, Any]:
    """`summary["replica_time"]` (sim.time_split), with the prices of each model where there are several."""
    waits = [replica.accounts.times.load_wait_s for replica in cluster.replicas]
    if isinstance(cluster.fleet, Pool):
        return pool_time(cluster.fleet, steps, waits, span_s)
    return time_split(steps, cluster.cost, waits, span_s)
