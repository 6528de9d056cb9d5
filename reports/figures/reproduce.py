"""Published and simulated values of one table of figures: a pair of bars per row."""

import math
from typing import Any

from reports.figures.base import BLUE, GREY, ORANGE, SKY, Figure, plot_text
from reports.reproduce_text import label
from sim.reproduce.rows import Row, Verdict

PAIR_PX = 40
"""Height of one pair of bars."""
MARGINS_PX = 130
LOG_FROM = 50.0
"""Values that differ by more are drawn on a logarithmic axis."""


def pairs(key: str, found: Verdict) -> list[Figure]:
    """One figure for each unit of a table."""
    units = list(dict.fromkeys(row.unit for row in found.rows))
    return [_figure(f"{key}-{k}", found, unit) for k, unit in enumerate(units)]


def _figure(key: str, found: Verdict, unit: str) -> Figure:
    rows = [row for row in found.rows if row.unit == unit]
    names = _names(rows)
    simulated = [row.simulated if math.isfinite(row.simulated) else None for row in rows]
    colors = [SKY if row.counted else GREY for row in rows]
    data = [
        _bars("published", names, [row.published for row in rows], [ORANGE if r.counted else GREY for r in rows], unit),
        _bars("simulated", names, simulated, [BLUE if color == SKY else GREY for color in colors], unit),
    ]
    shown = [v for row in rows for v in (row.published, row.simulated) if math.isfinite(v) and v > 0]
    axis: dict[str, Any] = {"title": {"text": plot_text(unit)}, "rangemode": "tozero"}
    if shown and max(shown) / min(shown) > LOG_FROM:
        axis = {"title": {"text": plot_text(unit)}, "type": "log"}
    layout = {
        "height": MARGINS_PX + PAIR_PX * len(rows),
        "barmode": "group",
        "hovermode": "closest",
        "xaxis": axis,
        "yaxis": {"type": "category", "autorange": "reversed", "dtick": 1, "automargin": True},
    }
    read = "Orange: published. Blue: simulated. Grey: shown, not judged."
    return Figure(key, f"{found.table.where} ({unit})", read, _finding(rows), data, layout)


def _finding(rows: list[Row]) -> str:
    found = [row.ratio for row in rows if math.isfinite(row.ratio)]
    if not found:
        return "None of it could be run."
    return f"Simulated over published: {min(found):.2f} to {max(found):.2f}."


def _names(rows: list[Row]) -> list[str]:
    return [plot_text(label(row)) for row in rows]


def _bars(name: str, labels: list[str], lengths: list[Any], colors: list[str], unit: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": labels,
        "x": [None if length is None else float(f"{length:.5g}") for length in lengths],
        "marker": {"color": colors},
        "hovertemplate": "%{fullData.name}  %{x:,.4~r} " + plot_text(unit) + "<extra>%{y}</extra>",
    }
