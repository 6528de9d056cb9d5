"""Metrics along what a sweep varies: lines over one axis, and heat maps of two."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from reports.figures.base import (
    BLUE,
    CYCLE,
    DASHES,
    GREY,
    INK,
    VERMILLION,
    Choice,
    Figure,
    Picks,
    plot_text,
    values,
)
from reports.figures.pareto import limit_on
from reports.sweep_data import Axis, Measure, SweepData, SweepRun, axis_of, log_axis, value_text, wide
from reports.text import number

LINES = 8
"""Lines that one figure holds; with more combinations of the other axes, points and their median are drawn."""
BINS = 8
"""Of equal width, for the numbers of an axis that is no grid."""
READ_LINES = (
    "The metric along one axis; the other axes tell the lines apart, or, if they are many, are the points around the "
    "median."
)
READ_HEAT = (
    "Each cell is the mean of the runs with these two values, whatever the other axes are (hover: how many, least and "
    "most). Brighter is better. × : every run there failed; empty: none was made."
)


def line_choice(data: SweepData) -> Choice | None:
    """A metric along an axis, for each metric and axis."""
    axes, metrics = [axis for axis in data.axes if len(axis.values) > 1], [*data.metrics, *data.costs[:1]]
    if not axes or not metrics:
        return None
    menus = [("Along", [axis.label for axis in axes]), ("Metric", [one.label for one in metrics])]
    figures: Picks = {(i, j): along(data, axis, one) for i, axis in enumerate(axes) for j, one in enumerate(metrics)}
    return Choice("lines", "Along one axis", READ_LINES, menus, figures)


def heat_choice(data: SweepData) -> Choice | None:
    """A metric over two axes, for each metric and pair of axes; None with fewer than two axes."""
    axes, metrics = [axis for axis in data.axes if len(axis.values) > 1], [*data.metrics, *data.costs[:1]]
    pairs = list(combinations(axes, 2))
    if not pairs or not metrics:
        return None
    menus = [("Axes", [f"{b.label} by {a.label}" for a, b in pairs]), ("Metric", [one.label for one in metrics])]
    figures: Picks = {(i, j): heat(data, a, b, one) for i, (a, b) in enumerate(pairs) for j, one in enumerate(metrics)}
    return Choice("heat", "Heat map of two axes", READ_HEAT, menus, figures)


def along(data: SweepData, axis: Axis, metric: Measure) -> Figure:
    """A metric along an axis."""
    title = f"{metric.label} along {axis.label}"
    runs = [run for run in data.done if metric.key in run.measures]
    if not runs:
        return Figure("lines", title, READ_LINES, empty=f"No run has {metric.label}.")
    others = [one for one in data.axes if one.path != axis.path and len(one.values) > 1]
    groups: dict[str, list[SweepRun]] = {}
    for run in runs:
        groups.setdefault(", ".join(_named(one, run) for one in others), []).append(run)
    scale, y_axis = axis_of(metric, [run.measures[metric.key] for run in runs])
    if axis.grid and len(groups) <= LINES:
        traces = [
            _line(name or metric.label, group, axis, metric, scale, i) for i, (name, group) in enumerate(groups.items())
        ]
    else:
        traces = [_cloud(runs, axis, metric, scale)]
        if axis.grid:
            traces.append(_median(runs, axis, metric, scale))
    layout: dict[str, Any] = {
        "hovermode": "closest",
        "xaxis": _x_axis(axis, runs),
        "yaxis": y_axis,
    }
    limit_on(layout, data, metric, scale)
    return Figure("lines", title, READ_LINES, _extremes(runs, metric), traces, layout)


def heat(data: SweepData, across: Axis, up: Axis, metric: Measure) -> Figure:
    """A metric over two axes: the mean of each cell."""
    title = f"{metric.label} by {across.label} and {up.label}"
    columns, rows = _cells(across, data.runs), _cells(up, data.runs)
    shown: list[list[float | None]] = []
    texts: list[list[str]] = []
    hovers: list[list[str]] = []
    for row_name, in_row in rows:
        line: list[tuple[float | None, str, str]] = []
        for column_name, in_column in columns:
            runs = [run for run in data.runs if in_row(run) and in_column(run)]
            where = f"{across.label} {column_name}, {up.label} {row_name}"
            line.append(_cell(where, runs, metric))
        shown.append([None if cell[0] is None else float(f"{cell[0]:.5g}") for cell in line])
        texts.append([cell[1] for cell in line])
        hovers.append([plot_text(cell[2]) for cell in line])
    if all(value is None for line in shown for value in line):
        return Figure("heat", title, READ_HEAT, empty=f"No run has {metric.label}.")
    dense = len(columns) * len(rows) > 120
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": shown,
        "x": [plot_text(name) for name, _ in columns],
        "y": [plot_text(name) for name, _ in rows],
        "text": texts,
        "customdata": hovers,
        "hovertemplate": "%{customdata}<extra></extra>",
        "colorscale": "Cividis",
        "reversescale": metric.better == "lower",
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": True,
        "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": plot_text(metric.unit)}},
    }
    known = [value for line in shown for value in line if value is not None]
    if wide(known):  # else one bad corner takes all colours
        ends = [math.log10(min(known)), math.log10(max(known))]
        marks = [ends[0] + (ends[1] - ends[0]) * k / 3 for k in range(4)]
        trace["z"] = [
            [None if value is None else float(f"{math.log10(value):.5g}") for value in line] for line in shown
        ]
        trace["colorbar"] |= {"tickvals": marks, "ticktext": [number(10**mark, 2) for mark in marks]}
    if not dense:
        trace["texttemplate"] = "%{text}"
    layout = {
        "hovermode": "closest",
        "height": 130 + 40 * max(4, len(rows)),
        "xaxis": {"title": {"text": plot_text(across.label)}, "type": "category", "showgrid": False},
        "yaxis": {"title": {"text": plot_text(up.label)}, "type": "category", "showgrid": False, "dtick": 1},
    }
    return Figure("heat", title, READ_HEAT, _best_cell(shown, columns, rows, across, up, metric), [trace], layout)


def _cell(where: str, runs: Sequence[SweepRun], metric: Measure) -> tuple[float | None, str, str]:
    found = [run.measures[metric.key] for run in runs if metric.key in run.measures]
    failed = [run for run in runs if run.error is not None]
    if not found:
        return None, "×" if failed else "", f"{where}: {failed[0].error if failed else 'no run'}"
    mean = sum(found) / len(found)
    told = f"{where}: {metric.label} {value_text(metric, mean)}"
    if len(found) > 1:
        told += f", mean of {len(found)} runs from {value_text(metric, min(found))} to {value_text(metric, max(found))}"
    return mean, number(mean, 3), f"{told}{f'; {len(failed)} failed' if failed else ''}"


def _cells(axis: Axis, runs: Sequence[SweepRun]) -> list[tuple[str, Any]]:
    """(name, if a run is in it) of each value of the axis, or of each bin of its numbers."""
    if axis.grid:
        return [(value, lambda run, value=value: run.values[axis.path] == value) for value in axis.values]
    found = np.array([run.numbers[axis.path] for run in runs])
    log = wide(found.tolist())
    edges = np.geomspace(found.min(), found.max(), BINS + 1) if log else np.linspace(found.min(), found.max(), BINS + 1)
    bins = []
    for k, (low, high) in enumerate(pairwise(edges.tolist())):
        last = k == BINS - 1
        name = f"{number(float(low), 2)} to {number(float(high), 2)} {axis.unit}".strip()

        def holds(run: SweepRun, low: float = low, high: float = high, last: bool = last) -> bool:
            return bool(low <= run.numbers[axis.path] < high or (last and run.numbers[axis.path] >= high))

        bins.append((name, holds))
    return bins


def _x_axis(axis: Axis, runs: Sequence[SweepRun]) -> dict[str, Any]:
    if axis.grid:
        names = [plot_text(value) for value in axis.values]
        return {
            "title": {"text": plot_text(axis.label)},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": names,
            "zeroline": False,
        }
    found = [run.numbers[axis.path] for run in runs]
    return {"title": {"text": plot_text(axis.title)}, "zeroline": False, **(log_axis(found) if wide(found) else {})}


def _line(name: str, runs: Sequence[SweepRun], axis: Axis, metric: Measure, scale: float, place: int) -> dict[str, Any]:
    order = sorted(runs, key=lambda run: axis.values.index(run.values[axis.path]))
    color = CYCLE[place % len(CYCLE)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plot_text(name),
        "x": [plot_text(run.values[axis.path]) for run in order],
        "y": values(np.array([run.measures[metric.key] for run in order]) / scale),
        "line": {"color": color, "width": 2, "dash": DASHES[(place // len(CYCLE)) % len(DASHES)]},
        "marker": {"color": color, "size": 7},
        "customdata": [plot_text(f"{run.name}: {value_text(metric, run.measures[metric.key])}") for run in order],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _cloud(runs: Sequence[SweepRun], axis: Axis, metric: Measure, scale: float) -> dict[str, Any]:
    grid = axis.grid
    at = (
        [plot_text(r.values[axis.path]) for r in runs]
        if grid
        else values(np.array([r.numbers[axis.path] for r in runs]))
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "runs",
        "x": at,
        "y": values(np.array([run.measures[metric.key] for run in runs]) / scale),
        "marker": {
            "color": GREY if grid else BLUE,
            "size": 8,
            "opacity": 0.75,
            "symbol": ["circle-open" if run.slo_met is False else "circle" for run in runs],
        },
        "customdata": [
            plot_text(
                f"{run.name}: {value_text(metric, run.measures[metric.key])}"
                f"{' (misses the SLO)' if run.slo_met is False else ''}"
            )
            for run in runs
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _median(runs: Sequence[SweepRun], axis: Axis, metric: Measure, scale: float) -> dict[str, Any]:
    held = {value: [r.measures[metric.key] for r in runs if r.values[axis.path] == value] for value in axis.values}
    known = [(value, float(np.median(found))) for value, found in held.items() if found]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "median",
        "x": [plot_text(value) for value, _ in known],
        "y": values(np.array([middle for _, middle in known]) / scale),
        "line": {"color": VERMILLION, "width": 2},
        "marker": {"color": INK, "size": 8, "symbol": "diamond"},
        "customdata": [plot_text(f"{value}: median {value_text(metric, middle)}") for value, middle in known],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _named(axis: Axis, run: SweepRun) -> str:
    return f"{axis.label}={run.values[axis.path]}" if axis.numeric else run.values[axis.path]


def _extremes(runs: Sequence[SweepRun], metric: Measure) -> str:
    key = metric.key
    low, high = min(runs, key=lambda run: run.measures[key]), max(runs, key=lambda run: run.measures[key])
    if math.isclose(low.measures[key], high.measures[key], rel_tol=1e-9):
        return f"{metric.label} is {value_text(metric, low.measures[key])} in every run."
    return (
        f"From {value_text(metric, low.measures[key])} ({low.label}) to {value_text(metric, high.measures[key])} "
        f"({high.label})."
    )


def _best_cell(
    shown: Sequence[Sequence[float | None]],
    columns: Sequence[tuple[str, Any]],
    rows: Sequence[tuple[str, Any]],
    across: Axis,
    up: Axis,
    metric: Measure,
) -> str:
    cells = [(value, r, c) for r, line in enumerate(shown) for c, value in enumerate(line) if value is not None]
    if not metric.better:
        return ""
    value, r, c = min(cells) if metric.better == "lower" else max(cells, key=lambda cell: cell[0])
    return f"Best: {value_text(metric, value)} at {across.label} {columns[c][0]}, {up.label} {rows[r][0]}."
