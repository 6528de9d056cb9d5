"""What would move a run: for each metric a tornado of the reruns with one resource changed at a time."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from reports.explained import SMALL, Change, changes, said, scope, sentence, swing, told
from reports.figures.base import BLUE, INK, ORANGE, Figure, plot_text, values
from reports.tables import TextTable
from reports.text import is_number, metric_value, percent

LOOKS = ((0.5, "half of it", ORANGE), (2.0, "twice of it", BLUE))
ROW_PX = 34
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Changes on the axis while all are small; beyond the last one it has powers of two."""
MOST_OCTAVES = 6.0
"""Bars end here: a factor of 64."""


def tornado_figures(study: Mapping[str, Any]) -> list[Figure]:
    """A figure for each metric of the study, in its order."""
    return [_figure(study, metric, number) for number, metric in enumerate(study["metrics"])]


def explain_table(study: Mapping[str, Any]) -> TextTable:
    """Every resource with what its changes did to every metric; what moves the first metric most is first."""
    metrics, about = study["metrics"], {str(r["label"]): r for r in study["resources"]}
    order = [row[0].resource for row in changes(study, metrics[0]) if row] if metrics else []
    by_metric = [{row[0].resource: row for row in changes(study, m) if row} for m in metrics]
    rows = [("as it is", "", "", *(" ".join(metric_value(m["value"], m["unit"])).strip() for m in metrics))]
    for name in order:
        tried = "; ".join(c.to for c in by_metric[0][name])
        texts = [[told(c) for c in found[name]] for found in by_metric]
        cells = [text[0] if len(set(text)) == 1 else "; ".join(text) for text in texts]
        rows.append((name, str(about[name]["value"]), tried, *cells))
    columns = ("Resource", "Now", "Changed to", *(str(m["label"]) for m in metrics))
    terms = [(name, str(about[name].get("what", ""))) for name in order]
    problems = [
        (f"{c.resource}, {c.to}", f"Could not run: {c.problem}") for r in by_metric[0].values() for c in r if c.problem
    ]
    numbers = tuple(range(1, len(columns)))
    return TextTable(
        "explain-table", "One resource at a time", scope(study), columns, rows, numbers, [*terms, *problems]
    )


def _figure(study: Mapping[str, Any], metric: Mapping[str, Any], number: int) -> Figure:
    label = str(metric["label"])
    key, title = f"tornado-{number}", f"What would move {label}"
    better = "left" if metric.get("better") == "lower" else "right"
    read = (
        f"{label} with one resource changed, over {label} as it is: {better} is better. What moves it most is first. "
        "Thin lines: 90 % intervals, where they are known."
    )
    base = metric["value"]
    if not is_number(base) or base <= 0:
        return Figure(
            key,
            title,
            read,
            empty=f"{label} is {base if is_number(base) else 'unknown'}, so nothing can be compared with it.",
        )
    every = changes(study, metric)
    found = [row for row in every if any(swing(change) >= SMALL for change in row)]
    if not found:
        return Figure(key, title, read, empty=f"Nothing that was tried moves {label} by {percent(SMALL)} or more.")
    still = [row[0].resource for row in every if row and row not in found]
    read += f" Not moved by {percent(SMALL)}: {'; '.join(still)}." if still else ""
    data = [bar for factor, name, color in LOOKS if (bar := _bars(found, metric, factor, name, color))]
    reach = max((abs(x) for bar in data for x in (*bar["x"], *_tips(bar))), default=0.0)
    layout = {
        "barmode": "group",
        "bargap": 0.3,
        "hovermode": "closest",
        "height": 110 + ROW_PX * len(found),
        "xaxis": {"title": {"text": plot_text(f"{label}, change")}, "zeroline": True, **_axis(reach)},
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [plot_text(row[0].resource) for row in reversed(found) if row],
            "showgrid": False,
            "ticksuffix": "  ",
            "dtick": 1,
        },
    }
    return Figure(key, title, read, sentence(study, str(metric["key"])), data, layout)


def _bars(rows: list[list[Change]], metric: Mapping[str, Any], factor: float, name: str, color: str) -> dict[str, Any]:
    chosen = [c for row in rows for c in row if c.factor == factor and c.ratio is not None]
    if not chosen:
        return {}
    texts = [" ".join(metric_value(c.value, str(metric["unit"]))).strip() for c in chosen]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [plot_text(c.resource) for c in chosen],
        "x": values(np.array([octaves(c.ratio or 0.0) for c in chosen])),
        "customdata": [plot_text(f"{said(c)}: {text} ({told(c)})") for c, text in zip(chosen, texts, strict=True)],
        "marker": {"color": color},
        **_ends(chosen),
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _tips(bar: Mapping[str, Any]) -> list[float]:
    """Where the error bars end."""
    lines = bar.get("error_x", {"array": (), "arrayminus": ()})
    pairs = zip(bar["x"], lines["array"], lines["arrayminus"], strict=bool(lines["array"]))
    return [end for x, more, less in pairs for end in (x + more, x - less)]


def _ends(chosen: list[Change]) -> dict[str, Any]:
    """Error bars: the 90 % intervals, as octaves on both sides of the bars' ends; nothing where none is known."""
    if not any(c.interval for c in chosen):
        return {}
    sides = [(c.interval or (c.ratio or 0.0,) * 2, octaves(c.ratio or 0.0)) for c in chosen]
    low = values(np.array([max(0.0, end - octaves(pair[0])) for pair, end in sides]))
    high = values(np.array([max(0.0, octaves(pair[1]) - end) for pair, end in sides]))
    bars = {"type": "data", "symmetric": False, "array": high, "arrayminus": low}
    return {"error_x": {**bars, "color": INK, "thickness": 1, "width": 3}}


def octaves(ratio: float) -> float:
    """log2 of a ratio, cut at MOST_OCTAVES on both sides."""
    if ratio <= 0:
        return -MOST_OCTAVES
    return max(-MOST_OCTAVES, min(MOST_OCTAVES, math.log2(ratio)))


def _axis(reach: float) -> dict[str, Any]:
    """Range and ticks of an axis in octaves that reaches so far to both sides."""
    step = next((tick for tick in TICKS if math.log2(1 + tick) * 2 >= reach), None)
    if step is not None and step < TICKS[-1]:
        marks = [-2 * step, -step, 0.0, step, 2 * step]
        places = [math.log2(1 + mark) for mark in marks]
        texts = ["as it is" if not mark else f"{'+' if mark > 0 else '−'}{100 * abs(mark):g} %" for mark in marks]
        edge = 1.15 * max(reach, math.log2(1 + step))
    else:
        most = max(1, math.ceil(reach))
        stride = max(1, math.ceil(most / 3))
        whole = range(-(most // stride) * stride, most + 1, stride)
        places = [float(n) for n in whole]
        texts = ["as it is" if not n else f"× {2**n:g}" if n > 0 else f"÷ {2**-n:g}" for n in whole]
        edge = 1.1 * max(reach, 1.0)
    shown = [(x, text) for x, text in zip(places, texts, strict=True) if abs(x) <= edge]
    return {"range": [-edge, edge], "tickvals": [x for x, _ in shown], "ticktext": [t for _, t in shown]}
