"""What each replica's time went into: arithmetic, HBM, links, launches, nothing. Disjoint, and adding up to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sim.cost.stage import Attended
from sim.cost.step import StepCost
from sim.tables import numbers

Floats = npt.NDArray[np.float64]

PARTS = ("compute_s", "hbm_s", "link_wait_s", "launch_s", "idle_s")
PIPELINED = (*PARTS[:-1], "bubble_s", "idle_s")
"""Parts where replicas have pipeline stages."""
COLUMNS = (
    *("start_s", "end_s", "count", "decode_seqs", "padding_seqs", "context_tokens", "prefill_seqs", "prefill_tokens"),
    *("linear_s", "attention_s", "exchange_s", "pipeline_s", "stall_s", "interference_s", "layer_wait_s"),
    *("works_s", "moves_s"),
)
"""What is needed of the table of steps."""
BUCKETS = 10
"""Context lengths that differ by a tenth of a factor e share one answer: what bounds a kernel changes slowly."""


def time_split(steps: pa.Table, cost: StepCost, load_wait_s: Sequence[float], span_s: float) -> dict[str, Any]:
    """`summary["replica_time"]`: seconds of PARTS (or PIPELINED) over all replicas and, in `replicas`, of each.

    Kernels split by `StepCost.bound`, whose fixed times (ramps and floors of kernels) count as launch overhead, as do
    waits for launches and for the host. Attention of prompts is arithmetic. Links: what GPUs exchange, waits for KV
    that is loaded or copied away, and what copies add to steps. Bubbles: waits of the average stage for others.
    load_wait_s: by replica. span_s: what each replica has, from the start to the last finish.
    """
    column = {name: numbers(steps, name).astype(np.float64, copy=False) for name in COLUMNS}
    column["decode_seqs"] = column["decode_seqs"] + column["padding_seqs"]  # rows that compute
    replica, count = numbers(steps, "replica").astype(np.int64), len(load_wait_s)
    linear, decode = _linear_shares(column, cost), _decode_shares(column, cost)
    attention_s = column["attention_s"]
    decode_s = np.where(column["prefill_seqs"] > 0, np.minimum(attention_s, decode[:, 2]), attention_s)
    hbm = column["linear_s"] * linear[:, 0] + decode_s * decode[:, 0] + column["works_s"]
    compute = column["linear_s"] * linear[:, 1] + decode_s * decode[:, 1] + attention_s - decode_s
    slowed = column["interference_s"] + column["layer_wait_s"] + column["moves_s"]
    link = column["exchange_s"] + slowed + column["stall_s"]
    whole = column["end_s"] - column["start_s"] + column["stall_s"]
    launch = np.maximum(0.0, whole - hbm - compute - link - column["pipeline_s"])

    def each(seconds: Floats) -> Floats:
        return np.bincount(replica, weights=seconds, minlength=count).astype(np.float64)

    parts = [each(compute), each(hbm), each(link) + np.asarray(load_wait_s), each(launch)]
    names: tuple[str, ...] = PARTS
    if len(cost.stages) > 1:
        names = PIPELINED
        parts.append(each(column["pipeline_s"]))
    parts.append(np.maximum(0.0, span_s - np.sum(parts, axis=0)))
    found = {name: float(values.sum()) for name, values in zip(names, parts, strict=True)}
    rows = np.stack(parts, axis=1).tolist()
    return {**found, "replicas": [dict(zip(names, row, strict=True)) for row in rows]}


def _linear_shares(column: dict[str, Floats], cost: StepCost) -> Floats:
    """float64[rows, 2]: of the linear kernels' time, what waits for HBM and what for arithmetic."""
    seqs, new = column["decode_seqs"], column["prefill_tokens"]
    sizes = [cost.decode_rows(n) if n else 0 for n in range(int(seqs.max(initial=0)) + 1)]
    ran = np.where(new > 0, _alike(seqs + new), np.array(sizes)[seqs.astype(np.int64)])
    sampled = seqs + column["prefill_seqs"]  # chunks that do not end their prompt are not: a difference in the head
    keys, where = np.unique(np.stack([ran, sampled], axis=1), axis=0, return_inverse=True)
    found = np.zeros((len(keys), 2))
    for i, (tokens, rows) in enumerate(keys.astype(np.int64).tolist()):
        bound = cost.bound(tokens, rows, 0, 0, [])
        found[i] = bound.hbm_s, bound.compute_s
        found[i] *= len(cost.stages) / cost.linear(tokens, rows)
    return _no_more(found)[where.reshape(-1)]


def _decode_shares(column: dict[str, Floats], cost: StepCost) -> Floats:
    """float64[rows, 3]: of decode attention's time, what waits for HBM and what for arithmetic; and that time, s."""
    seqs, steps = column["decode_seqs"], column["count"]
    mean = np.divide(column["context_tokens"], seqs, out=np.zeros_like(seqs), where=seqs > 0) + (steps - 1) / 2
    bucket = np.round(np.log(np.maximum(mean, 1.0)) * BUCKETS)
    keys, where = np.unique(np.stack([seqs, bucket], axis=1), axis=0, return_inverse=True)
    found = np.zeros((len(keys), 3))
    for i, (n, place) in enumerate(keys.astype(np.int64).tolist()):
        if not n:
            continue
        each = float(np.exp(place / BUCKETS))
        windowed = [Attended(tokens, 0) for tokens, _ in cost.alike(n, each, each)]
        context = round(n * each)
        tokens = cost.decode_rows(n)
        linear, whole = cost.bound(tokens, n, 0, 0, []), cost.bound(n, n, n, context, [], windowed)
        seconds = cost.decode(n, context, tokens, windowed)
        found[i] = whole.hbm_s - linear.hbm_s, whole.compute_s - linear.compute_s, seconds
        found[i, :2] *= len(cost.stages) / seconds
    found[:, :2] = _no_more(found[:, :2])
    return found[where.reshape(-1)]


def _alike(tokens: Floats) -> Floats:
    """Steps of many tokens that differ by a hundredth share one answer too: long prompts end in any number of them."""
    rounded = np.round(np.exp2(np.round(np.log2(np.maximum(tokens, 1.0)) * 64) / 64))
    return np.where(tokens > 256, rounded, tokens)


def _no_more(shares: Floats) -> Floats:
    """Shares of a whole: none below 0, no more than 1 together."""
    shares = np.maximum(shares, 0.0)
    scaled: Floats = shares / np.maximum(1.0, shares.sum(axis=1, keepdims=True))
    return scaled
