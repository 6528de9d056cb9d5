"""What several models on the same GPUs did in a run, for its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from policies.fleet.base import ReplicaState
from sim.fleet.pool import Pool
from sim.quantiles import latency_ms
from sim.tables import numbers
from sim.time_split import PARTS, time_split

HOW = ("warm", "partly", "cold")
"""How the weights of a start were found: there, on their way, or to be loaded."""


def pool_summary(pool: Pool, requests: pa.Table) -> dict[str, Any]:
    """`models`: requests and latencies of each, and how its instances started; `prewarm`: what loads ahead came to.

    hit_ratio: starts whose weights were there or on their way / starts. later_hit_ratio: of those in the second half of
    the time of the trace, when a forecast has a past. gpu_share: GPU-seconds with an instance / those of all GPUs.
    """
    models = np.array([pool.model_of(i) for i in numbers(requests, "request_id").tolist()], dtype=np.int64)
    finished = ~np.isnan(numbers(requests, "finish_s"))
    half = float(numbers(requests, "arrival_s").max(initial=0.0)) / 2
    each = []
    for model in pool.models:
        mine = models == model.index
        starts = [how for _, m, how in pool.life.starts if m == model.index]
        each.append(
            {
                "name": model.name,
                "gpus": model.gpus,
                "weight_bytes": model.shard_bytes * model.gpus,
                "load_s": model.load_s,
                "requests": int(mine.sum()),
                "finished": int((mine & finished).sum()),
                "ttft_ms": latency_ms(numbers(requests, "ttft_s")[mine]),
                "gateway_wait_ms": latency_ms(numbers(requests, "gateway_wait_s")[mine]),
                "starts": {how: starts.count(how) for how in HOW},
            }
        )
    later = [how for time, _, how in pool.life.starts if time >= half]
    busy = sum(
        len(each.placed.group) * pool.states.seconds[index][state]
        for index, each in enumerate(pool.instances)
        for state in (ReplicaState.STARTING, ReplicaState.SERVING, ReplicaState.DRAINING)
    )
    span = sum(pool.states.seconds[0].values()) if pool.instances else 0.0
    whole = span * len(pool.life.running)
    return {
        "models": each,
        "gpu_share": min(1.0, busy / whole) if whole else 0.0,
        "prewarm": {
            "policy": "none" if pool.spec.prewarm is None else pool.spec.prewarm.name,
            "starts": {how: sum(h == how for _, _, h in pool.life.starts) for how in HOW},
            "hit_ratio": _hits([how for _, _, how in pool.life.starts]),
            "later_hit_ratio": _hits(later),
            "loads": 0 if pool.windows is None else pool.windows.prewarms,
            "unused": pool.life.unused,
            "loaded_bytes": pool.residency.loaded_bytes,
            "lent_peak_bytes": pool.life.lending.peak,
        },
    }


def _hits(how: Sequence[str]) -> float | None:
    return sum(h != "cold" for h in how) / len(how) if how else None


def pool_time(pool: Pool, steps: pa.Table, load_wait_s: Sequence[float], span_s: float) -> dict[str, Any]:
    """`summary["replica_time"]` where instances have prices of their own."""
    rows: list[dict[str, float]] = []
    replica = numbers(steps, "replica").astype(np.int64)
    place = steps.column_names.index("replica")
    for part in pool.parts:
        last = part.first + len(part.groups)
        mine = np.flatnonzero((replica >= part.first) & (replica < last))
        waits = load_wait_s[part.first : last]
        if not len(mine):
            rows += [{**dict.fromkeys(PARTS, 0.0), "link_wait_s": w, "idle_s": span_s - w} for w in waits]
            continue
        found = steps.take(pa.array(mine)).combine_chunks()
        own = pa.array((replica[mine] - part.first).astype(np.int16))
        rows += time_split(found.set_column(place, "replica", own), part.cost, waits, span_s)["replicas"]
    return {**{name: sum(row[name] for row in rows) for name in PARTS}, "replicas": rows}
