"""Parallel coordinates: every run as a line through its settings and its results.

Drawn as plain lines: Plotly's own trace needs WebGL, which compiles code as it runs, and pages of ours forbid that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reports.figures.base import BLUE, GREY, INK, ORANGE, QUIET, SKY, VERMILLION, Choice, Figure, Picks, plot_text
from reports.sweep_data import MANY, Measure, SweepData, SweepRun, value_text, wide
from reports.text import number

COLORS = (BLUE, SKY, GREY, ORANGE, VERMILLION)
"""Of fifths of the runs, the best first."""
READ = (
    "Each line is a run: left its settings, right its results, with the better end of a result on top. Colours are "
    "fifths of the runs by the chosen metric; click one in the legend to hide it. Lines that stay together show what "
    "makes runs good."
)
RESULTS = 4


@dataclass(frozen=True)
class _Rail:
    """An upright axis: its name, the height (0 to 1) by id() of each run that has one, and names of heights."""

    title: str
    heights: dict[int, float]
    ticks: Sequence[tuple[float, str]]


def parallel_choice(data: SweepData) -> Choice | None:
    """Every run's settings and results, coloured by each metric."""
    metrics = [one for one in data.metrics if one.better]
    if not metrics or len(data.done) < 2:
        return None
    figures: Picks = {(i,): parallel(data, one) for i, one in enumerate(metrics)}
    return Choice("parallel", "Parallel coordinates", READ, [("Colour by", [one.label for one in metrics])], figures)


def parallel(data: SweepData, metric: Measure) -> Figure:
    """Every run that has the metric."""
    title = f"Runs by {metric.label}"
    runs = sorted(
        (run for run in data.done if metric.key in run.measures),
        key=lambda run: run.measures[metric.key] * (1 if metric.better == "lower" else -1),
    )
    if not runs:
        return Figure("parallel", title, READ, empty=f"No run has {metric.label}.")
    rails = [*_settings(data, runs), *_results(data, runs, metric)]
    cuts = [round(len(runs) * k / len(COLORS)) for k in range(len(COLORS) + 1)]
    traces = [
        _trace(runs[low:high], rails, metric, color, named=len(runs) <= MANY)
        for low, high, color in zip(cuts[:-1], cuts[1:], COLORS, strict=True)
        if high > low
    ]
    notes: list[dict[str, Any]] = [
        {
            "x": place,
            "y": height,
            "xanchor": "left" if place < len(rails) - 1 else "right",
            "xshift": 4 if place < len(rails) - 1 else -4,
            "showarrow": False,
            "text": plot_text(text),
            "font": {"color": QUIET, "size": 11},
        }
        for place, rail in enumerate(rails)
        for height, text in rail.ticks
    ]
    shapes = [
        {"type": "line", "x0": k, "x1": k, "y0": 0, "y1": 1, "line": {"color": INK, "width": 1}}
        for k in range(len(rails))
    ]
    layout = {
        "hovermode": "closest",
        "height": 440,
        "annotations": notes,
        "shapes": shapes,
        "xaxis": {
            "range": [-0.3, len(rails) - 0.7],
            "tickvals": list(range(len(rails))),
            "ticktext": [plot_text(rail.title).replace(" (", "<br>(") for rail in rails],
            "zeroline": False,
            "showgrid": False,
        },
        "yaxis": {"visible": False, "range": [-0.06, 1.06], "zeroline": False},
    }
    best, worst = runs[0], runs[-1]
    finding = (
        f"Best by {metric.label}: {best.label} ({value_text(metric, best.measures[metric.key])}); worst: {worst.label} "
        f"({value_text(metric, worst.measures[metric.key])})."
    )
    return Figure("parallel", title, READ, finding, traces, layout, broad=True)


def _trace(
    runs: Sequence[SweepRun], rails: Sequence[_Rail], metric: Measure, color: str, *, named: bool
) -> dict[str, Any]:
    x: list[int | None] = []
    y: list[float | None] = []
    told: list[str] = []
    for run in runs:
        text = plot_text(f"{run.name}: {metric.label} {value_text(metric, run.measures[metric.key])}")
        for place, rail in enumerate(rails):
            height = rail.heights.get(id(run))
            x.append(place)
            y.append(None if height is None else float(f"{height:.4g}"))
            told += [text] * named
        x.append(None)
        y.append(None)
        told += [""] * named
    hover = {"customdata": told, "hovertemplate": "%{customdata}<extra></extra>"}
    ends = [value_text(metric, run.measures[metric.key]) for run in (runs[0], runs[-1])]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plot_text(ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"),
        "x": x,
        "y": y,
        "line": {"color": color, "width": 1.5},
        "marker": {"color": color, "size": 5},
        "opacity": 0.85,
        "connectgaps": False,
        **(hover if told else {"hoverinfo": "skip"}),
    }


def _settings(data: SweepData, runs: Sequence[SweepRun]) -> list[_Rail]:
    rails = []
    for axis in data.axes:
        if len(axis.values) < 2:
            continue
        if axis.grid:
            step = 1 / (len(axis.values) - 1)
            at = {value: k * step for k, value in enumerate(axis.values)}
            shown = [(at[v], v) for v in (axis.values if len(axis.values) <= 8 else (axis.values[0], axis.values[-1]))]
            rails.append(_Rail(axis.label, {id(run): at[run.values[axis.path]] for run in runs}, shown))
            continue
        found = {id(run): run.numbers[axis.path] for run in runs}
        rails.append(_scaled(axis.title, found, number, flip=False))
    return rails


def _results(data: SweepData, runs: Sequence[SweepRun], metric: Measure) -> list[_Rail]:
    chosen = list(dict.fromkeys([*data.costs[:1], metric, *data.metrics]))[:RESULTS]
    rails = []
    for one in chosen:
        found = {id(run): run.measures[one.key] for run in runs if one.key in run.measures}
        if found:
            rails.append(_scaled(one.title, found, lambda v: number(v, 3), flip=one.better == "lower"))
    return rails


def _scaled(title: str, found: dict[int, float], text: Callable[[float], str], *, flip: bool) -> _Rail:
    """Heights by log where values span more than a factor of 20, else by value."""
    raw = np.array(list(found.values()))
    low, high = float(raw.min()), float(raw.max())
    at = np.log(raw) if wide(raw.tolist()) else raw
    span = float(at.max() - at.min())
    heights = (at - at.min()) / span if span else np.full(len(at), 0.5)
    if flip:
        heights = 1 - heights
    ends = [(0.5, text(low))] if not span else [(1.0 if flip else 0.0, text(low)), (0.0 if flip else 1.0, text(high))]
    return _Rail(title, dict(zip(found, heights.tolist(), strict=True)), ends)
