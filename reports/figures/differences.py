"""Differences with their intervals, in per cent of the first variant, of a percentage in points.

What excludes 0 is told apart.
"""

from typing import Any

import numpy as np

from reports.figures.base import CYCLE, INK, Figure, plot_text, values
from sim.whatif.compare import Comparison, Row

ROW_PX = 26
"""Height of one metric of one variant."""


def differences(found: Comparison) -> Figure:
    """One point per metric and variant, with a bar over its interval."""
    rows = [row for row in found.rows if _scaled(row) and any(d and d.low is not None for d in row.differences)]
    read = (
        "Points are differences to the first variant, bars their 90 % intervals. A bar across 0: cannot be told apart."
    )
    title = "Differences with their intervals"
    if not rows:
        return Figure("differences", title, read, empty="No difference here has an interval.")
    data = [_points(label, place, rows) for place, label in enumerate(found.labels[1:])]
    layout = {
        "height": 140 + ROW_PX * len(rows) * len(data),
        "hovermode": "closest",
        "xaxis": {
            "title": {
                "text": f"difference to {plot_text(found.labels[0])} (% of its value; points where the row says so)"
            },
            "zeroline": False,
        },
        "yaxis": {"type": "category", "autorange": "reversed", "dtick": 1, "zeroline": False, "automargin": True},
        "scattermode": "group",
        "shapes": [
            {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "line": {"color": INK, "width": 1}}
        ],
    }
    return Figure("differences", title, read, "", data, layout)


def _scaled(row: Row) -> bool:
    """True if its differences are in points, or there is a value that they are per cent of."""
    return row.values[0] is not None and (row.metric["unit"] == "%" or row.values[0] != 0)


def _points(label: str, place: int, rows: list[Row]) -> dict[str, Any]:
    points, above, below, names = [], [], [], []
    for row in rows:
        found, first = row.differences[place], row.values[0]
        if found is None or found.low is None or found.high is None or first is None:
            continue
        scale = 1 if row.metric["unit"] == "%" else 100 / abs(first)
        points.append(scale * found.value)
        above.append(scale * (found.high - found.value))
        below.append(scale * (found.value - found.low))
        names.append(plot_text(f"{row.metric['label']}{', points' if row.metric['unit'] == '%' else ''}"))
    color = CYCLE[place % len(CYCLE)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plot_text(label),
        "x": values(np.array(points)),
        "y": names,
        "marker": {"color": color, "size": 8},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": values(np.array(above)),
            "arrayminus": values(np.array(below)),
            "color": color,
        },
        "hovertemplate": "%{fullData.name}  %{x:+.3~g} %<extra>%{y}</extra>",
    }
