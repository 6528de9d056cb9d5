"""Latency: what TTFT is made of, the distributions of TTFT, TPOT and E2E, and TTFT through the run."""

import math
from typing import Any

import numpy as np

from reports import bins as b
from reports.figures.base import (
    BLUE,
    INK,
    VERMILLION,
    Figure,
    TimeAxis,
    level_line,
    line,
    plot_text,
    time_layout,
    values,
)
from reports.figures.parts import NOTHING, part_figures
from reports.load import Floats, RunData
from reports.text import METRIC_LABELS, percent, seconds, slo_label

DECADES = tuple(
    (10.0**k, label)
    for k, label in zip(
        range(-6, 6),
        (
            "1 µs",
            "10 µs",
            "100 µs",
            "1 ms",
            "10 ms",
            "100 ms",
            "1 s",
            "10 s",
            "100 s",
            "1,000 s",
            "10,000 s",
            "100,000 s",
        ),
        strict=True,
    )
)


def latency_figures(run: RunData, axis: TimeAxis) -> list[Figure]:
    """The latency section, top to bottom."""
    return [
        *part_figures(run),
        distribution(run, "ttft", "time to first token", BLUE),
        distribution(run, "e2e", "time to last token", BLUE),
        distribution(run, "tpot", "time per output token after the first", BLUE),
        ttft_over_time(run, axis),
    ]


ENOUGH = 100
"""Requests of a bin from which on its 99th percentile is not simply its slowest request."""


def distribution(run: RunData, metric: str, words: str, color: str) -> Figure:
    """Cumulative distribution of one latency on a log axis, with the scenario's SLO targets on it."""
    label = METRIC_LABELS[metric]
    column = run.finished[f"{metric}_s"]
    x, share = b.cdf(column)
    article = "an" if label.startswith("E") else "a"
    key, title = f"cdf-{metric}", f"{label}: {words}"
    read = f"A point (x, y): y % of requests have {article} {label} of x or less; further left is better."
    if not len(x):
        return Figure(key, title, read, empty=NOTHING if not run.finished.rows else f"No request has a {label}.")
    x = np.maximum(x, 1e-6)
    targets = [
        (slo_label(k), t["target_ms"] / 1e3, _level(k), bool(t.get("met")))
        for k, t in run.slo_targets.items()
        if k.startswith(f"{metric}_") and isinstance(t.get("target_ms"), int | float)
    ]
    low, high = log_range(x, [t[1] for t in targets])
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": label,
            "x": values(x),
            "y": values(100 * share),
            "line": {"color": color, "width": 2.5},
            "customdata": [seconds(float(v)) for v in x],
            "hovertemplate": "%{y:.2f} % within %{customdata}<extra></extra>",
            "showlegend": False,
        }
    ]
    shapes, notes = [], []
    for name, limit, level, met in targets:
        tone = INK if met else VERMILLION
        shapes.append(
            {
                "type": "line",
                "x0": limit,
                "x1": limit,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": tone, "width": 1.5, "dash": "dash"},
            }
        )
        right = (math.log10(limit) - low) / (high - low) > 0.6
        notes.append(
            {
                "x": math.log10(limit),
                "xanchor": "right" if right else "left",
                "yref": "paper",
                "y": 0.04,
                "yanchor": "bottom",
                "showarrow": False,
                "text": plot_text(f" SLO {name} ≤ {seconds(limit)} "),
                "font": {"color": tone},
            }
        )
        if level is not None:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"SLO {plot_text(name)}",
                    "x": [limit],
                    "y": [level],
                    "marker": {"color": tone, "size": 9, "symbol": "diamond"},
                    "showlegend": False,
                    "hovertemplate": f"{level:g} % must be within {seconds(limit)}<extra></extra>",
                }
            )
    finding = f"Median {seconds(b.percentile(column, 50))}, p99 {seconds(b.percentile(column, 99))}"
    ok = column[np.isfinite(column)]
    for _, limit, _, _ in targets[:1]:
        finding += f"; {percent(float((ok <= limit).mean()))} of requests are within {seconds(limit)}"
    layout = {
        "xaxis": log_axis(f"{label} (log scale)", low, high),
        "hovermode": "closest",
        "hoverdistance": 200,
        "yaxis": {"title": {"text": "requests (%)"}, "range": [0, 101], "zeroline": False},
        "shapes": shapes,
        "annotations": notes,
    }
    if targets:
        read += " The curve must pass above the diamond on the dashed line."
    return Figure(key, title, read, finding + ".", data, layout)


def _level(key: str) -> float | None:
    """The percentile in `ttft_p99` as a number; None for a mean or a maximum."""
    statistic = key.partition("_")[2]
    try:
        return float(statistic.removeprefix("p")) if statistic.startswith("p") else None
    except ValueError:
        return None


def log_range(x: Floats, more: list[float]) -> tuple[float, float]:
    """log10 limits with a little air, at least one decade wide."""
    low, high = math.log10(min([float(x[0]), *more])) - 0.08, math.log10(max([float(x[-1]), *more])) + 0.08
    air = max(0.0, 1.0 - (high - low)) / 2
    return low - air, high + air


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """A log axis labelled `10 ms`, `1 s`, ... with 2 and 5 between where fewer than three decades show."""
    ticks = [(v, t) for v, t in DECADES if low <= math.log10(v) <= high]
    if high - low < 2.2:
        fine = [v * f for v, _ in DECADES for f in (1, 2, 5)]
        ticks = [(v, seconds(v)) for v in fine if low <= math.log10(v) <= high]
    return {
        "type": "log",
        "title": {"text": title},
        "range": [low, high],
        "zeroline": False,
        "tickvals": [v for v, _ in ticks],
        "ticktext": [t for _, t in ticks],
    }


def ttft_over_time(run: RunData, axis: TimeAxis) -> Figure:
    """Median and p99 TTFT of the requests that arrived in each bin."""
    key, title = "ttft-time", "TTFT through the run"
    each = run.finished.rows / axis.bins.count
    few = each < ENOUGH
    tail = "slowest" if few else "p99"
    read = f"Median and {tail} TTFT of the requests that arrived in each bin ({axis.every})."
    if not run.finished.rows:
        return Figure(key, title, read, empty=NOTHING)
    if few:
        read += (
            f" A bin has about {each:.0f} requests, too few for a p99 of its own; targets on percentiles are the run's."
        )
    p50, p99 = b.percentiles(axis.bins, run.finished["arrival_s"], run.finished["ttft_s"], (50.0, 99.0))
    data = [
        line(tail, p99, axis, VERMILLION, "s", connectgaps=True),
        line("median", p50, axis, BLUE, "s", connectgaps=True),
    ]
    layout = time_layout(axis, "TTFT (s)")
    for name, target in run.slo_targets.items():
        if name.startswith("ttft_") and isinstance(target.get("target_ms"), int | float):
            shape, note = level_line(target["target_ms"] / 1e3, f"SLO {slo_label(name)}")
            layout.setdefault("shapes", []).append(shape)
            layout.setdefault("annotations", []).append(note)
    peak = int(np.nanargmax(p99))
    when = (axis.bins.width * (peak + 0.5)) / axis.divisor
    what = "its slowest request takes" if few else "its p99 is"
    finding = f"The worst bin is around {when:.3g} {axis.unit}: {what} {seconds(float(p99[peak]))}."
    return Figure(key, title, read, finding, data, layout)
