"""What each replica's time went into: arithmetic, HBM, links, launches, nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from reports.figures.base import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Figure, plot_text, values
from reports.load import RunData, section
from reports.text import percent
from sim.time_split import PIPELINED

COLORS = dict(zip(PIPELINED, (BLUE, GREEN, ORANGE, PURPLE, SKY, GREY), strict=True))
MOST_BARS = 16
"""Replicas with a bar of their own; of more, those with the least idle time, the middle and the most."""


def replica_time(run: RunData) -> Figure:
    """Shares of the time of all replicas, and of each."""
    key, title = "replica-time-split", "What replicas' time went into"
    read = "Share of the time from the start to the last finish, by what bounded it; the parts add up to 100 %."
    split = section(run.summary, "replica_time")
    rows = split.get("replicas") or []
    if not rows:
        return Figure(key, title, read, empty="The summary of this run does not say.")
    parts = [part for part in PIPELINED if part in rows[0]]
    seconds = np.array([[row[part] for part in parts] for row in rows], dtype=float)
    shown = _shown(seconds)
    labels = ["all replicas", *(f"replica {i}" for i in shown)] if len(rows) > 1 else ["the replica"]
    bars = np.vstack([seconds.sum(axis=0), seconds[shown]]) if len(rows) > 1 else seconds
    total = bars.sum(axis=1, keepdims=True)
    shares = 100.0 * np.divide(bars, total, out=np.zeros_like(bars), where=total > 0)
    fields = section(section(run.summary, "definitions"), "replica_time")
    names = [str(section(fields, part).get("label") or part) for part in parts]
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plot_text(name),
            "y": labels,
            "x": values(shares[:, i]),
            "marker": {"color": COLORS[part]},
            "hovertemplate": "%{fullData.name}  %{x:.3~r} %<extra>%{y}</extra>",
        }
        for i, (part, name) in enumerate(zip(parts, names, strict=True))
    ]
    most = int(np.argmax(shares[0]))
    finding = f"The largest part is {names[most]}: {percent(shares[0, most] / 100)}."
    if len(shown) < len(rows) > 1:
        finding += f" Of {len(rows)} replicas, {len(shown)} from the busiest to the idlest have a bar."
    layout = {
        "barmode": "stack",
        "bargap": 0.35,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "share of replica time (%)"}, "range": [0, 100], "zeroline": False},
        "yaxis": {"autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
    }
    return Figure(key, title, read, finding, data, layout)


def _shown(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> list[int]:
    """Replicas with a bar: all, or some evenly from the least idle to the most, in their order."""
    if len(seconds) <= MOST_BARS:
        return list(range(len(seconds)))
    by_idle = np.argsort(seconds[:, -1], kind="stable")
    places = np.linspace(0, len(seconds) - 1, MOST_BARS).round().astype(int)
    return sorted(by_idle[places].tolist())
