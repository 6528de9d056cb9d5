"""What more money buys: cost against how near the tightest target is to its limit."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.figures.base import GREEN, INK, ORANGE, VERMILLION, Figure, level_line, plot_text, values
from reports.plan_data import PlanData, Searched, Tried, target_label
from reports.sweep_data import log_axis, wide
from reports.text import number, percent

READ = (
    "Each point is a run that ended: what its hardware costs, and how near its tightest target is to the limit. Below "
    "100 % the SLO is met, unless requests were rejected. The line joins runs that nothing cheaper comes as far below "
    "the limits as."
)


def cost_figure(data: PlanData) -> Figure | None:
    """What more money buys: cost against the tightest target; None without costs that differ."""
    runs = [
        (search, one, one.bill, one.tightest)
        for search in data.searches
        for one in search.tried
        if one.whole and one.bill is not None and one.tightest is not None
    ]
    points = [(s, one, bill.total, tight) for s, one, bill, tight in runs if bill is not None and tight is not None]
    if len({total for *_, total, _ in points}) < 2:
        return None
    kinds = (("meets the SLO", True, GREEN, "circle"), ("misses the SLO", False, ORANGE, "circle-open"))
    traces: list[dict[str, Any]] = []
    for name, met, color, symbol in kinds:
        chosen = [point for point in points if point[1].met is met]
        if chosen:
            traces.append(_costs(name, chosen, {"color": color, "size": 9, "symbol": symbol}, "markers"))
    best: list[tuple[Searched, Tried, float, tuple[str, float]]] = []
    for point in sorted(points, key=lambda point: (point[2], point[3][1])):
        if not point[1].met and point[3][1] <= 1:  # within the limits but for the requests that it rejected
            continue
        if not best or point[3][1] < best[-1][3][1]:
            best.append(point)
    marker = {"color": VERMILLION, "size": 11, "symbol": "diamond"}
    traces.append({**_costs("frontier", best, marker, "lines+markers"), "line": {"color": VERMILLION, "dash": "dot"}})
    answer = None if data.best is None else data.best.answer
    if data.best is not None and answer is not None and answer.bill is not None and answer.tightest is not None:
        ring = {"color": INK, "size": 17, "symbol": "circle-open", "line": {"color": INK, "width": 2}}
        chosen = [(data.best, answer, answer.bill.total, answer.tightest)]
        traces.append(_costs("recommended", chosen, ring, "markers"))
    heights = [100 * point[3][1] for point in points]
    log = min(heights) > 0 and wide([*heights, 100.0])
    shape, note = level_line(100.0, "the limit")
    if log:
        note["y"] = 2.0
    currency = next(bill.currency for _, _, bill, _ in runs if bill is not None)
    layout = {
        "hovermode": "closest",
        "shapes": [shape],
        "annotations": [note],
        "xaxis": {"title": {"text": plot_text(f"cost ({currency}/h)")}, "zeroline": False, "rangemode": "tozero"},
        "yaxis": {
            "title": {"text": "tightest target (% of its limit)"},
            **(log_axis([*heights, 100.0]) if log else {"zeroline": False, "rangemode": "tozero"}),
        },
    }
    items = [
        f"{search.label}: {one.shown}, {number(total)} {currency}/h, {target_label(tight[0])} at {percent(tight[1])} "
        "of its limit"
        for search, one, total, tight in best
    ]
    finding = f"{len(best)} runs are on the frontier; they are listed below, the cheapest first."
    return Figure("cost", "What more money buys", READ, finding, traces, layout, items=items)


def _costs(
    name: str,
    points: Sequence[tuple[Searched, Tried, float, tuple[str, float]]],
    marker: dict[str, Any],
    mode: str,
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": values(np.array([total for *_, total, _ in points])),
        "y": values(np.array([100 * tight[1] for *_, tight in points])),
        "marker": marker,
        "customdata": [
            plot_text(
                f"{search.label}: {one.shown}, {number(total)} per hour, {target_label(tight[0])} at "
                f"{percent(tight[1])} of its limit"
            )
            for search, one, total, tight in points
        ],
        "hovertemplate": "%{customdata}<extra>%{fullData.name}</extra>",
    }
