"""Mean parts of TTFT and E2E, over all finished requests and over the slowest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.attribution import BETWEEN, WAITS

Floats = npt.NDArray[np.float64]

SPANS = {"ttft": ("prefill",), "e2e": ("prefill", "decode")}
"""What is split, and the phases of a request in it."""
SLOWEST = 0.01
"""Share of the requests that count as the slowest."""


def attribution(columns: Mapping[str, Floats], finished: npt.NDArray[np.bool_], tiers: Sequence[str]) -> dict[str, Any]:
    """`summary["attribution"]`: for TTFT and E2E the mean of every part in ms, which add up to the mean of the whole.

    `slowest` are the requests with the largest TTFT, or E2E: 1 % of them, and at least one. Empty if none finished.
    """
    if not finished.any():
        return {}
    done = {name: 1e3 * values[finished] for name, values in columns.items() if name.endswith("_s")}
    return {f"{name}_ms": _means(done[f"{name}_s"], parts_of(name, done, tiers)) for name in SPANS}


def parts_of(span: str, done: Mapping[str, Floats], tiers: Sequence[str]) -> dict[str, Floats]:
    """The parts of one of SPANS by name, from columns of the table of requests; HBM is tiers[0]."""
    phases = SPANS[span]
    gateway = {"gateway_wait": done["gateway_wait_s"]} if "gateway_wait_s" in done else {}
    lookup = {"lookup": done["lookup_s"]} if "lookup_s" in done else {}
    parts = {
        "queue": done["queue_s"]
        - done["prefetch_wait_s"]
        - gateway.get("gateway_wait", 0.0)
        - lookup.get("lookup", 0.0),
        **gateway,
        **lookup,
        "prefetch_wait": done["prefetch_wait_s"],
        **{f"load_{tier}": done[f"load_{tier}_s"] for tier in tiers[1:]},
        "prefill": done["prefill_compute_s"],
    }
    if "decode" in phases:
        parts |= {f"handoff_{part}": done[f"decode_{part}_s"] for part in BETWEEN if f"decode_{part}_s" in done}
        parts |= {"decode": done["decode_compute_s"], "decode_beside": done["decode_beside_s"]}
    for part in ("recompute", "preempted", *WAITS):
        parts[part] = np.sum([done[f"{phase}_{part}_s"] for phase in phases], axis=0)
    return parts


def _means(total: Floats, parts: Mapping[str, Floats]) -> dict[str, Any]:
    order = np.argsort(-total, kind="stable")
    groups = {"all": order, "slowest": order[: max(1, floor(SLOWEST * len(total)))]}
    return {
        name: {
            "requests": len(rows),
            "mean": float(total[rows].mean()),
            "parts": {part: max(0.0, float(values[rows].mean())) for part, values in parts.items()},
        }
        for name, rows in groups.items()
    }
