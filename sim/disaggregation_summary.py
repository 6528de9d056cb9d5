"""What prefill/decode disaggregation did in a run: columns of the table of requests, and a section of the summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sim.attribution import BETWEEN
from sim.cluster import Cluster
from sim.disaggregation import Disaggregation
from sim.disaggregation_spec import KV_LINK
from sim.quantiles import latency_ms
from sim.tables import numbers

Floats = npt.NDArray[np.float64]


def handed_columns(apart: Disaggregation, requests: pa.Table) -> dict[str, np.ndarray]:
    """Columns of the table of requests, which has those in the order of sending; times in seconds.

    decode_replica      where it was decoded; -1 if it had one token, or none
    decode_memory_s     after its first token, until the decode instance had memory for it
    decode_transfer_s   from then (or from its first token) until all of its KV was there
    decode_place_s      from then until its first step there was decided: `decode_start_s`. Together, decode_start_s -
                        first_token_s
    second_token_s      when it had its first token there
    transfer_s          from its first byte on the link to its last one, what went beside its prefill included
    transfer_bytes      that crossed the link
    decode_hit_tokens   tokens of its prompt that the decode instance had cached, which were not sent
    """
    done = {name: apart.done.numbers(name) for name in apart.done.types}
    rows = np.full(int(numbers(requests, "request_id").max(initial=-1)) + 1, -1)
    rows[done["index"]] = np.arange(len(done["index"]))
    row = rows[numbers(requests, "request_id")]
    handed = row >= 0
    first, finish = numbers(requests, "first_token_s"), numbers(requests, "finish_s")

    def column(values: np.ndarray, other: Any) -> np.ndarray:
        found: np.ndarray = np.where(handed, values[row], other) if len(values) else np.broadcast_to(other, len(row))
        return np.array(found, dtype=values.dtype)

    none = np.where(np.isnan(finish), np.nan, 0.0)
    start = column(done["joined_s"], finish)
    placed, landed = np.maximum(column(done["placed_s"], first), first), column(done["landed_s"], first)
    return {
        "decode_replica": column(done["target"], -1),
        "decode_start_s": start,
        **{
            f"decode_{part}_s": np.where(handed, seconds, none)
            for part, seconds in zip(BETWEEN, (placed - first, landed - placed, start - landed), strict=True)
        },
        "second_token_s": column(done["second_s"], np.nan),
        "transfer_s": column(done["landed_s"] - done["start_s"], none),
        "transfer_bytes": column(done["bytes"], 0),
        "decode_hit_tokens": column(done["reused"], 0),
    }


def disaggregation(cluster: Cluster, requests: pa.Table, span_s: float) -> dict[str, Any] | None:
    """`summary["disaggregation"]`: what crossed the link, what requests waited for, how busy the pools were.

    Latencies in ms over the requests that were handed over. span_s: from the start to the last finish. None without
    two pools.
    """
    apart = cluster.disaggregation
    if apart is None:
        return None
    handed = numbers(requests, "decode_replica") >= 0
    column = {name: numbers(requests, name)[handed] for name in requests.column_names if name not in TEXTS}
    lost = [p for p in cluster.preemptions if not apart.computes_prompts(p.replica)]
    return {
        "transfer": apart.spec.transfer,
        "link": cluster.inputs.devices[KV_LINK].name,
        "requests": int(handed.sum()),
        "bytes": int(column["transfer_bytes"].sum()),
        "reused_bytes": int(column["decode_hit_tokens"].sum()) * cluster.inputs.token_bytes,
        "transfer_ms": latency_ms(column["transfer_s"]),
        "memory_wait_ms": latency_ms(column["decode_memory_s"]),
        "transfer_wait_ms": latency_ms(column["decode_transfer_s"]),
        "place_wait_ms": latency_ms(column["decode_place_s"]),
        "second_token_ms": latency_ms(column["second_token_s"] - column["first_token_s"]),
        "preemptions": len(lost),
        "pools": {
            "prefill": _pool(cluster, range(apart.spec.prefill), span_s),
            "decode": _pool(cluster, range(apart.spec.prefill, apart.spec.prefill + apart.spec.decode), span_s),
        },
    }


TEXTS = ("status", "reason")


def _pool(cluster: Cluster, replicas: range, span_s: float) -> dict[str, Any]:
    """How busy a pool was: shares of its replica-seconds, and how full its HBM got (mean of the replicas' peaks)."""
    mine = [cluster.replicas[index] for index in replicas]
    times = [replica.accounts.times for replica in mine]
    whole = span_s * len(mine)
    busy = sum(t.compute_s + t.interference_s + t.layer_wait_s for t in times)
    held_up = sum(t.load_wait_s + t.store_wait_s for t in times)
    tiers = [replica.cache.hbm for replica in mine]
    return {
        "replicas": len(mine),
        "busy": busy / whole if whole else 0.0,
        "waiting": held_up / whole if whole else 0.0,
        "hbm_peak": sum(tier.counters.peak_bytes / tier.capacity for tier in tiers) / len(mine),
    }
