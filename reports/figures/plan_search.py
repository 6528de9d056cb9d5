"""The search of a plan: each target against the hardware that was tried."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.figures.base import (
    CYCLE,
    INK,
    Choice,
    Figure,
    Picks,
    level_line,
    plot_text,
    values,
)
from reports.plan_data import ATTAINMENT, PlanData, Searched, Tried, target_label
from reports.sweep_data import log_axis, wide
from reports.text import percent, seconds

READ = (
    "Each point is a run of the search; below the dashed line the target is met. Triangles ended early: the target was "
    "lost, so by how much is not known. Filled: the whole SLO is met."
)
ALL = "all, of the limit"


def search_choice(data: PlanData) -> Choice:
    """Every target against what was searched, for each variant."""
    targets = list(dict.fromkeys(key for one in data.searches for key in one.targets))
    order = sorted(range(len(data.searches)), key=lambda i: data.searches[i] is not data.best)
    shown = [data.searches[i] for i in order]
    options = [ALL, *(target_label(key) for key in targets)]
    figures: Picks = {}
    for i, one in enumerate(shown):
        for j, key in enumerate([None, *targets]):
            figures[i, j] = searched(one, key)
    menus = [("Variant", [one.label for one in shown]), ("Target", options)]
    return Choice("search", "The search", READ, menus, figures)


def searched(search: Searched, key: str | None) -> Figure:
    """One target, or all as shares of their limits, against the values that were tried."""
    title = f"{search.label}: {ALL if key is None else target_label(key)}"
    keys = list(search.targets) if key is None else [key]
    ran = [one for one in search.tried if not one.failed]
    known = [value for k in keys for one in ran if (value := _height(one, k, shares=key is None)) is not None]
    level = 1.0 if key is None else search.targets.get(key, 1.0)
    if key == ATTAINMENT or key is None:
        known, level = [100 * value for value in known], 100 * level
    if not ran:
        return Figure("search", title, READ, empty="No run could be made: see below.")
    top = 1.25 * max([*known, level])
    names = [plot_text(one.shown) for one in ran]
    series = (_series(ran, k, place, shares=key is None, top=top) for place, k in enumerate(keys))
    traces = [trace for pair in series for trace in pair]
    unit = "% of the limit" if key is None else "% of requests" if key == ATTAINMENT else "s"
    layout: dict[str, Any] = {
        "hovermode": "closest",
        "xaxis": {
            "title": {"text": plot_text(search.path)},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": names,
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": plot_text(f"{'value' if key is None else target_label(key)} ({unit})")},
            **(log_axis([*known, level, top]) if wide([*known, level]) else {"rangemode": "tozero", "zeroline": False}),
        },
    }
    shape, note = level_line(level, "the limit" if key is None else f"SLO {limit_text(search, key)}")
    if layout["yaxis"].get("type") == "log":
        note["y"] = math.log10(level)
    layout |= {"shapes": [shape], "annotations": [note]}
    if search.answer is not None:
        at = ran.index(search.answer)  # the place: a name such as "7" would be taken for one
        layout["shapes"] = [shape, _upright(at)]
        mark = {"x": at, "yref": "paper", "y": 1, "yanchor": "top", "text": "answer"}
        layout["annotations"] = [note, {**mark, "showarrow": False, "font": {"color": INK}}]
    return Figure("search", title, READ, _finding(search), traces, layout)


def _upright(place: int) -> dict[str, Any]:
    line = {"color": INK, "width": 1.5, "dash": "dot"}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": place, "x1": place, "line": line, "layer": "below"}


def _height(one: Tried, key: str, *, shares: bool) -> float | None:
    return one.of_limit(key) if shares else one.values.get(key)


def _series(ran: Sequence[Tried], key: str, place: int, *, shares: bool, top: float) -> list[dict[str, Any]]:
    """Runs that ended, joined by a line; runs that lost the target early, as triangles on top."""
    scale = 100 if shares or key == ATTAINMENT else 1
    color = CYCLE[place % len(CYCLE)]
    ended = [(one, _height(one, key, shares=shares) if one.whole else None) for one in ran]  # None breaks the line
    lost = [one for one in ran if not one.whole and one.lost in (key, "rejected")]
    name = plot_text(target_label(key))
    met = [one.met for one, _ in ended]
    found: list[dict[str, Any]] = []
    if any(height is not None for _, height in ended):
        found.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [plot_text(one.shown) for one, _ in ended],
                "y": values(np.array([np.nan if height is None else scale * height for _, height in ended])),
                "line": {"color": color, "width": 1.5},
                "marker": {
                    "color": color,
                    "size": 10,
                    "symbol": ["circle" if one else "circle-open" for one in met],
                },
                "customdata": [_told(one, key) for one, _ in ended],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
    if lost:
        found.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{name}, lost early",
                "x": [plot_text(one.shown) for one in lost],
                "y": [top] * len(lost),
                "marker": {"color": color, "size": 11, "symbol": "triangle-up-open"},
                "customdata": [plot_text(f"{one.shown}: {one.why}") for one in lost],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
    return found


def _told(one: Tried, key: str) -> str:
    value, ratio = one.values.get(key), one.of_limit(key)
    told = percent(value) if key == ATTAINMENT else seconds(value)
    near = "" if ratio is None or key == ATTAINMENT else f", {percent(ratio)} of the limit"
    return plot_text(f"{one.shown}: {target_label(key)} {told}{near}, SLO {'met' if one.met else 'missed'}")


def limit_text(search: Searched, key: str) -> str:
    """`TTFT p99 ≤ 2 s`."""
    limit = search.targets.get(key)
    return f"{target_label(key)} {f'≥ {percent(limit)}' if key == ATTAINMENT else f'≤ {seconds(limit)}'}"


def _finding(search: Searched) -> str:
    if search.answer is None:
        return "Nothing that was tried meets the SLO."
    tight = search.answer.tightest
    binds = f"; {target_label(tight[0])} is nearest to its limit ({percent(tight[1])} of it)" if tight else ""
    return f"{search.what[:1].upper()}{search.what[1:]}: {search.answer.shown}{binds}. {len(search.tried)} runs."
