"""A closed loop round by round: what `summary["rounds"]` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.cluster import Cluster
from sim.quantiles import latency_ms

MOST_ROUNDS = 64
"""Rows at most; the last one holds all later rounds too."""

Ints = npt.NDArray[np.int64]


def by_round(
    cluster: Cluster, columns: Mapping[str, np.ndarray], finished: np.ndarray, again: Ints | None
) -> list[dict[str, Any]]:
    """Reuse, TTFT and throughput of each round of the conversations, first round 1; empty for an open trace.

    columns: float64 or int64[requests] by the names of the request table. finished: bool[requests]. again: tokens that
    each request computed although an earlier prompt had had them (sim.lost_reuse), None where nothing is known.
    """
    trace, turns = cluster.trace, columns["turn"]
    if not trace.closed_loop or not (finished & (turns >= 0)).any():
        return []
    hits = np.stack([columns[f"hit_{tier}_tokens"] for tier in cluster.tier_names])
    found: Ints = hits.sum(axis=0, dtype=np.int64)
    possible = np.maximum(found if again is None else found + again, _carried(cluster, columns["request_id"]))
    last = min(MOST_ROUNDS, int(turns.max()) + 1)
    rows = []
    for turn in range(last):
        chosen = finished & ((turns >= turn) if turn == last - 1 else (turns == turn))
        prompts = int(columns["input_tokens"][chosen].sum())
        ends, sent = columns["finish_s"][chosen], columns["arrival_s"][chosen]
        start, end = (float(sent.min()), float(ends.max())) if len(ends) else (0.0, 0.0)
        span = end - start
        outputs = int(columns["output_tokens"][chosen].sum())
        rows.append(
            {
                "round": turn + 1,
                "and_later": bool(turn == last - 1 and (turns > turn).any()),
                "requests": int(chosen.sum()),
                "start_s": start,
                "end_s": end,
                "input_tokens": prompts,
                "hit_tokens": {tier: int(columns[f"hit_{tier}_tokens"][chosen].sum()) for tier in cluster.tier_names},
                "hit_ratio": int(found[chosen].sum()) / prompts if prompts else 0.0,
                "unlimited_hit_ratio": int(possible[chosen].sum()) / prompts if prompts else 0.0,
                "ttft_ms": latency_ms(columns["ttft_s"][chosen]),
                "requests_per_s": int(chosen.sum()) / span if span else 0.0,
                "input_tokens_per_s": prompts / span if span else 0.0,
                "output_tokens_per_s": outputs / span if span else 0.0,
            }
        )
    return rows


def _carried(cluster: Cluster, ids: Ints) -> Ints:
    """Tokens of each prompt that the turn before it left behind, in full blocks of the engine: int64[len(ids)]."""
    trace, block = cluster.trace, cluster.scenario.spec.engine.block_tokens
    left = np.zeros(len(trace), dtype=np.int64)
    if trace.carried_by is not None:
        before = np.flatnonzero(trace.carried_by >= 0)
        left[trace.carried_by[before]] = (trace.input_tokens + trace.output_tokens - 1)[before] // block * block
    carried: Ints = left[ids]
    return carried
