"""Differences with their intervals, in per cent of the first variant, of a percentage in points.

What excludes 0 is told apart.
"""

from typing import Any

import numpy as np

from reports.figures.base import CYCLE, INK, Figure, plot_text, values
from sim.whatif.compare import Comparison, Row

ROW_PX = 26
"""Height of one metric of one variant."""
LEAST = 10.0
"""Per cent that the axis reaches at least before rows that go much further than the others are cut."""


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
    reach = _reach(data)
    edge = max(reach[name] for name in reach if reach[name] <= max(5 * float(np.median(list(reach.values()))), LEAST))
    beyond = [name for name in reach if reach[name] > edge]
    if beyond:
        read += f" Cut at the edge, see the table: {', '.join(beyond)}."
    layout = {
        "height": 140 + ROW_PX * len(rows) * len(data),
        "hovermode": "closest",
        "xaxis": {
            "title": {"text": "difference (% of the first, or points)"},
            "range": [-1.05 * edge, 1.05 * edge] if edge else [-1, 1],
            "zeroline": False,
        },
        "yaxis": {"type": "category", "autorange": "reversed", "dtick": 1, "zeroline": False, "automargin": True},
        "scattermode": "group",
        "shapes": [
            {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "line": {"color": INK, "width": 1}}
        ],
    }
    return Figure("differences", title, read, "", data, layout)


def _reach(data: list[dict[str, Any]]) -> dict[str, float]:
    """How far the interval of each row goes to either side, in the units of the axis."""
    found: dict[str, float] = {}
    for trace in data:
        error = trace["error_x"]
        for name, x, up, down in zip(trace["y"], trace["x"], error["array"], error["arrayminus"], strict=True):
            found[name] = max(found.get(name, 0.0), abs(x + up), abs(x - down))
    return found


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
    color = CYCLE[(place + 1) % len(CYCLE)]  # the first variant's is the first one
    return {
        "type": "scatter",
        "mode": "markers",
        "orientation": "h",
        "offsetgroup": str(place),
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
