"""A run that goes on from a snapshot: what `summary["from_snapshot"]` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.quantiles import latency_ms
from sim.scenario import Scenario
from sim.snapshot import Snapshot
from sim.snapshot_changes import changes


def since(
    snapshot: Snapshot | None, scenario: Scenario, columns: Mapping[str, np.ndarray], finished: np.ndarray
) -> dict[str, Any] | None:
    """When the run went on, what changed then, and what the requests sent later came to; None without a snapshot.

    Everything else in the summary is of the whole run, the part before the snapshot included.
    """
    if snapshot is None:
        return None
    later = finished & (columns["arrival_s"] > snapshot.at_s)
    prompts = int(columns["input_tokens"][later].sum())
    hits = sum(int(columns[name][later].sum()) for name in columns if name.startswith("hit_"))
    span = float(columns["finish_s"][finished].max(initial=snapshot.at_s)) - snapshot.at_s
    return {
        "at_s": snapshot.at_s,
        "changed": changes(snapshot.base, scenario),
        "requests_before": snapshot.ended,
        "requests_under_way": snapshot.under_way,
        "requests": int(later.sum()),
        **{f"{name}_ms": latency_ms(columns[f"{name}_s"][later]) for name in ("ttft", "tpot", "e2e")},
        "hit_ratio": hits / prompts if prompts else 0.0,
        "requests_per_s": int(later.sum()) / span if span > 0 else 0.0,
    }
