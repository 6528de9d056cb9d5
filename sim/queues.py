"""How many requests run and wait at a time, over all replicas: exact, from the times of requests and preemptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sim.engine.sequence import Preemption
from sim.tables import numbers

Floats = npt.NDArray[np.float64]


def queue_lengths(requests: pa.Table, lost: Sequence[Preemption], span_s: float) -> dict[str, dict[str, float]]:
    """`summary["queue"]`: mean over `span_s` (until the last finish) and maximum of waiting and running.

    A served request waits from its arrival to its first chunk, loads included, and again from each preemption to the
    first chunk after it; it runs for the rest of its time.
    """
    arrival, chunk, finish = (numbers(requests, f"{name}_s") for name in ("arrival", "first_chunk", "finish"))
    served = ~np.isnan(finish)
    gone, back = (np.fromiter((getattr(p, name) for p in lost), np.float64, len(lost)) for name in ("start_s", "end_s"))
    again = np.fromiter((p.restart_s for p in lost), np.float64, len(lost))
    again = np.where(np.isnan(again), back, again)  # preempted once more before it ran
    came, ran, went = arrival[served], chunk[served], finish[served]
    waiting = _level(np.concatenate([came, gone]), np.concatenate([ran, again]), span_s)
    running = _level(np.concatenate([ran, again]), np.concatenate([went, gone]), span_s)
    return {"waiting": waiting, "running": running}


def _level(up: Floats, down: Floats, span_s: float) -> dict[str, Any]:
    """Of a count that each of `up` raises and each of `down` lowers; what happens at one time counts as one change."""
    if not len(up) or not span_s:
        return {"mean": 0.0, "max": 0}
    times = np.concatenate([up, down])
    steps = np.repeat([1, -1], [len(up), len(down)])
    order = np.argsort(times, kind="stable")
    level = np.cumsum(steps[order])
    last = np.append(np.diff(times[order]) > 0, True)  # of those at one time
    return {"mean": float(down.sum() - up.sum()) / span_s, "max": int(level[last].max())}
