"""The Pareto front of runs: what nothing else beats in both of two measures."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from reports.figures.base import BLUE, GREY, INK, VERMILLION, Choice, Figure, Picks, level_line, plot_text, values
from reports.load import Floats
from reports.sweep_data import Measure, SweepData, SweepRun, axis_of, value_text
from reports.text import seconds, slo_label

READ = (
    "Each point is a run. Those on the line are the front: no other run is at least as good in both measures and "
    "better in one. What is to be bought is on the front; everything else costs more for less."
)
KINDS = (
    ("meets the SLO", True, BLUE, "circle"),
    ("misses the SLO", False, GREY, "circle-open"),
    ("runs", None, BLUE, "circle"),
)
LISTED = 12
"""Runs of the front that are listed by name; longer fronts are marked in the figure alone."""


def front(points: Sequence[tuple[float, float]], lower: tuple[bool, bool]) -> list[int]:
    """Indices of the points that no other one is at least as good as in both and better in one, by the first measure.

    lower: if less is better, of each measure. Of equal points the first one is kept.
    """
    signs = [1.0 if one else -1.0 for one in lower]
    scaled = [(signs[0] * x, signs[1] * y) for x, y in points]
    found: list[int] = []
    least = float("inf")
    for index in sorted(range(len(scaled)), key=lambda i: scaled[i]):
        if scaled[index][1] < least:
            found.append(index)
            least = scaled[index][1]
    return found


def pareto_choice(data: SweepData) -> Choice | None:
    """The front by cost against each metric that has a better direction; by throughput if no cost differs."""
    metrics = [one for one in data.metrics if one.better]
    across = data.costs or [one for one in metrics if one.key in ("output_tokens_per_s", "goodput_per_s")][:1]
    pairs = [(x, y) for x in across for y in metrics if x.key != y.key]
    if not pairs:
        return None
    xs = list(dict.fromkeys(x for x, _ in pairs))
    ys = [y for y in metrics if all((x, y) in pairs for x in xs)]
    menus = [("Against", [one.label for one in xs]), ("Metric", [one.label for one in ys])]
    figures: Picks = {(i, j): pareto(data, x, y) for i, x in enumerate(xs) for j, y in enumerate(ys)}
    return Choice("pareto", "Pareto front", READ, menus, figures) if ys else None


def pareto(data: SweepData, x: Measure, y: Measure) -> Figure:
    """Runs by `x` and `y` with their front."""
    title = f"{y.label} against {x.label}"
    runs = [run for run in data.done if x.key in run.measures and y.key in run.measures]
    if not runs:
        return Figure("pareto", title, READ, empty="No run has both.")
    points = [(run.measures[x.key], run.measures[y.key]) for run in runs]
    best = front(points, (x.better == "lower", y.better == "lower"))
    x_scale, x_axis = axis_of(x, [one for one, _ in points])
    y_scale, y_axis = axis_of(y, [one for _, one in points])
    if min(x for x, _ in points) > max(x for x, _ in points) / 2:
        x_axis.pop("rangemode", None)  # from zero they would all lie in one corner
    drawn = np.array(points) / (x_scale, y_scale)
    told = [_said(run, x, y) for run in runs]
    traces = []
    for name, met, color, symbol in KINDS:
        chosen = [i for i, run in enumerate(runs) if run.slo_met is met]
        if chosen:
            marker = {"color": color, "size": 8, "symbol": symbol, "opacity": 0.8}
            traces.append({"mode": "markers", "name": name, "marker": marker, **_at(drawn, chosen, told)})
    numbers = [str(n) if n <= LISTED else "" for n in range(1, len(best) + 1)]
    traces.append(
        {
            "mode": "lines+markers+text",
            "name": "front",
            "text": numbers,
            "textposition": "top right",
            "textfont": {"color": INK, "size": 13},
            "line": {"color": VERMILLION, "width": 1.5, "dash": "dot"},
            "marker": {"color": VERMILLION, "size": 11, "symbol": "diamond"},
            **_at(drawn, best, told),
        }
    )
    layout: dict[str, Any] = {"hovermode": "closest", "xaxis": x_axis, "yaxis": y_axis}
    limit_on(layout, data, y, y_scale)
    many = f"the first {LISTED} are listed" if len(best) > LISTED else "they are listed below"
    finding = f"{len(best)} of {len(runs)} runs are on the front; {many}."
    items = [_item(runs, points, index, x, y) for index in best[:LISTED]]
    return Figure("pareto", title, READ, finding, traces, layout, items=items)


def limit_on(layout: dict[str, Any], data: SweepData, metric: Measure, scale: float) -> None:
    """Draw the SLO's limit on the metric, where it has one, into a layout whose y axis is divided by `scale`."""
    key = metric.key.removesuffix("_ms")
    if key not in data.slo:
        return
    limit = data.slo[key]
    level = limit / scale
    shape, note = level_line(level, f"SLO {slo_label(key)} ≤ {seconds(limit / 1e3)}")
    if layout["yaxis"].get("type") == "log":
        note["y"] = math.log10(level)
    layout |= {"shapes": [shape], "annotations": [note]}


def _at(drawn: Floats, chosen: Sequence[int], told: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": values(drawn[chosen, 0]),
        "y": values(drawn[chosen, 1]),
        "customdata": [told[i] for i in chosen],
        "hovertemplate": "%{customdata}<extra>%{fullData.name}</extra>",
    }


def _item(runs: Sequence[SweepRun], points: Sequence[tuple[float, float]], index: int, x: Measure, y: Measure) -> str:
    same = sum(point == points[index] for point in points) - 1
    also = f", and {same} more with the same values" if same else ""
    missed = " (misses the SLO)" if runs[index].slo_met is False else ""
    return f"{runs[index].label}{also}: {value_text(x, points[index][0])}, {value_text(y, points[index][1])}{missed}"


def _said(run: SweepRun, *measures: Measure) -> str:
    told = ", ".join(f"{one.label} {value_text(one, run.measures[one.key])}" for one in measures)
    return plot_text(f"{run.name}: {told}")
