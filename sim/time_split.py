"""What each replica's time went into: arithmetic, HBM, links, launches, nothing. Disjoint, and adding up to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
ROWS = 1 << 17
"""Steps that are looked at together: memory goes in proportion."""
BUCKETS = 10
"""Context lengths that differ by a tenth of a factor e share one answer: what bounds a kernel changes slowly."""


def time_split(steps: pa.Table, cost: StepCost, load_wait_s: Sequence[float], span_s: float) -> dict[str, Any]:
    """`summary["replica_time"]`: seconds of PARTS (or PIPELINED) over all replicas and, in `replicas`, of each.

    Kernels split by `StepCost.bound`, whose fixed times (ramps and floors of kernels) count as launch overhead, as do
    waits for launches and for the host. Attention of prompts is arithmetic. Links: what GPUs exchange, waits for KV
    that is loaded or copied away, and what copies add to steps. Bubbles: waits of the average stage for others.
    load_wait_s: by replica. span_s: what each replica has, from the start to the last finish.
    """
    count = len(load_wait_s)
    linear, decode = _Answers(partial(_linear_share, cost)), _Answers(partial(_decode_share, cost))
    compute, hbm, link, launch, pipeline = sums = np.zeros((5, count))
    for low in range(0, len(steps), ROWS):
        column = {
            name: numbers(steps, name)[low : low + ROWS].astype(np.float64, copy=False)
            for name in ("replica", *COLUMNS)
        }
        replica = column["replica"].astype(np.int64)
        for whole, seconds in zip(sums, _parts(column, cost, linear, decode), strict=True):
            np.add.at(whole, replica, seconds)  # in order of the rows, however many are taken at a time
    parts = [compute, hbm, link + np.asarray(load_wait_s), launch]
    names: tuple[str, ...] = PARTS
    if len(cost.stages) > 1:
        names = PIPELINED
        parts.append(pipeline)
    parts.append(np.maximum(0.0, span_s - np.sum(parts, axis=0)))
    found = {name: float(values.sum()) for name, values in zip(names, parts, strict=True)}
    rows = np.stack(parts, axis=1).tolist()
    return {**found, "replicas": [dict(zip(names, row, strict=True)) for row in rows]}


def _parts(column: dict[str, Floats], cost: StepCost, linear: _Answers, decode: _Answers) -> list[Floats]:
    """Seconds of steps that are arithmetic, HBM, links, launches and bubbles: float64[rows] each."""
    column["decode_seqs"] = column["decode_seqs"] + column["padding_seqs"]  # rows that compute
    of_linear, of_decode = linear.of(*_linear_keys(column, cost)), decode.of(*_decode_keys(column))
    attention_s = column["attention_s"]
    decode_s = np.where(column["prefill_seqs"] > 0, np.minimum(attention_s, of_decode[:, 2]), attention_s)
    hbm = column["linear_s"] * of_linear[:, 0] + decode_s * of_decode[:, 0] + column["works_s"]
    compute = column["linear_s"] * of_linear[:, 1] + decode_s * of_decode[:, 1] + attention_s - decode_s
    slowed = column["interference_s"] + column["layer_wait_s"] + column["moves_s"]
    link = column["exchange_s"] + slowed + column["stall_s"]
    whole = column["end_s"] - column["start_s"] + column["stall_s"]
    launch = np.maximum(0.0, whole - hbm - compute - link - column["pipeline_s"])
    return [compute, hbm, link, launch, column["pipeline_s"]]


class _Answers:
    """Shares of a time that wait for HBM and for arithmetic, and maybe more, for pairs of whole numbers: each is asked
    for once."""

    def __init__(self, answer: Callable[[int, int], tuple[float, ...]]) -> None:
        self._answer = answer
        self._known: dict[tuple[int, int], tuple[float, ...]] = {}

    def of(self, first: Floats, second: Floats) -> Floats:
        """float64[rows, 2 or more]: the answer for the pair of each row."""
        width = int(second.max(initial=0)) + 1
        pairs, where = np.unique((first * width + second).astype(np.int64), return_inverse=True)
        keys = [divmod(pair, width) for pair in pairs.tolist()]
        for key in keys:
            if key not in self._known:
                self._known[key] = self._answer(*key)
        found = np.array([self._known[key] for key in keys])
        found[:, :2] = _no_more(found[:, :2])
        return found[where]


def _linear_keys(column: dict[str, Floats], cost: StepCost) -> tuple[Floats, Floats]:
    """Tokens that the linear kernels of steps ran on, and rows that were sampled."""
    seqs, new = column["decode_seqs"], column["prefill_tokens"]
    sizes = [cost.decode_rows(n) if n else 0 for n in range(int(seqs.max(initial=0)) + 1)]
    ran = np.where(new > 0, _alike(seqs + new), np.array(sizes)[seqs.astype(np.int64)])
    return ran, seqs + column["prefill_seqs"]  # chunks that do not end their prompt are not: a difference in the head


def _linear_share(cost: StepCost, tokens: int, rows: int) -> tuple[float, ...]:
    """Of the linear kernels' time, what waits for HBM and what for arithmetic."""
    bound = cost.bound(tokens, rows, 0, 0, [])
    scale = len(cost.stages) / cost.linear(tokens, rows)
    return bound.hbm_s * scale, bound.compute_s * scale


def _decode_keys(column: dict[str, Floats]) -> tuple[Floats, Floats]:
    """Decoding sequences of steps, and the bucket of their mean context."""
    seqs, steps = column["decode_seqs"], column["count"]
    mean = np.divide(column["context_tokens"], seqs, out=np.zeros_like(seqs), where=seqs > 0) + (steps - 1) / 2
    return seqs, np.round(np.log(np.maximum(mean, 1.0)) * BUCKETS)


def _decode_share(cost: StepCost, seqs: int, bucket: int) -> tuple[float, ...]:
    """Of decode attention's time, what waits for HBM and what for arithmetic; and that time, s."""
    if not seqs:
        return 0.0, 0.0, 0.0
    each = float(np.exp(bucket / BUCKETS))
    windowed = [Attended(tokens, 0) for tokens, _ in cost.alike(seqs, each, each)]
    context = round(seqs * each)
    tokens = cost.decode_rows(seqs)
    linear, whole = cost.bound(tokens, seqs, 0, 0, []), cost.bound(seqs, seqs, seqs, context, [], windowed)
    seconds = cost.decode(seqs, context, tokens, windowed)
    scale = len(cost.stages) / seconds
    return (whole.hbm_s - linear.hbm_s) * scale, (whole.compute_s - linear.compute_s) * scale, seconds


def _alike(tokens: Floats) -> Floats:
    """Steps of many tokens that differ by a hundredth share one answer too: long prompts end in any number of them."""
    rounded = np.round(np.exp2(np.round(np.log2(np.maximum(tokens, 1.0)) * 64) / 64))
    return np.where(tokens > 256, rounded, tokens)


def _no_more(shares: Floats) -> Floats:
    """Shares of a whole: none below 0, no more than 1 together."""
    shares = np.maximum(shares, 0.0)
    scaled: Floats = shares / np.maximum(1.0, shares.sum(axis=1, keepdims=True))
    return scaled
