"""Latency: what TTFT is made of, the distributions of TTFT, TPOT and E2E, and TTFT through the run."""

import math
from typing import Any

import numpy as np

from reports import bins as b
from reports.figures.base import (
    BLUE,
    INK,
    ORANGE,
    VERMILLION,
    Figure,
    TimeAxis,
    level_line,
    line,
    plot_text,
    time_layout,
    values,
)
from reports.load import Floats, RunData, section
from reports.text import METRIC_LABELS, percent, seconds, slo_label

PARTS = (("queue_s", "queue", VERMILLION), ("load_s", "load", ORANGE), ("prefill_s", "prefill", BLUE))
GROUPS = (
    ("fastest half", 0.0, 0.5),
    ("p50 to p90", 0.5, 0.9),
    ("p90 to p99", 0.9, 0.99),
    ("slowest 1 %", 0.99, 1.0),
)
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
NOTHING = "No request finished in this run."


def latency_figures(run: RunData, axis: TimeAxis) -> list[Figure]:
    """The latency section, top to bottom."""
    return [
        *ttft_split(run),
        distribution(run, "ttft", "time to first token", BLUE),
        distribution(run, "e2e", "time to last token", BLUE),
        distribution(run, "tpot", "time per output token after the first", BLUE),
        ttft_over_time(run, axis),
    ]


def split_groups(run: RunData) -> tuple[list[str], Floats]:
    """Mean queue, load and prefill seconds of each TTFT percentile group, the mean of all last.

    Returns labels[g] and float64[g, 3]; groups too small to hold a request are left out.
    """
    order = np.argsort(run.finished["ttft_s"], kind="stable")
    n = len(order)
    parts = np.stack([run.finished[column] for column, _, _ in PARTS], axis=1)[order]
    labels, means = [], []
    for label, low, high in GROUPS:
        rows = parts[math.ceil(low * n) : math.ceil(high * n)]
        if len(rows):
            labels.append(label)
            means.append(rows.mean(axis=0))
    return [*labels, "all requests"], np.array([*means, parts.mean(axis=0)])


def ttft_split(run: RunData) -> list[Figure]:
    """TTFT by part for percentile groups: in seconds, and as shares of the group's TTFT."""
    titles = ("What TTFT is made of", "Shares of TTFT")
    read = (
        "Mean time in queue, waiting for KV to load, and in prefill, for requests grouped by TTFT rank."
        + _where_waits_are(run),
        "The same groups, each scaled to 100 %: compare bars to see what sets slow requests apart.",
    )
    keys = ("ttft-split", "ttft-shares")
    if not run.finished.rows:
        return [Figure(k, t, r, empty=NOTHING) for k, t, r in zip(keys, titles, read, strict=True)]
    labels, means = split_groups(run)
    total = means.sum(axis=1, keepdims=True)
    shares = 100.0 * np.divide(means, total, out=np.zeros_like(means), where=total > 0)
    tail, worst = len(labels) - 2, int(np.argmax(means[-2]))
    who = "the slowest 1 % of requests" if labels[tail] == "slowest 1 %" else "the slowest requests"
    slow, usual = seconds(float(total[tail, 0])), seconds(float(total[-1, 0]))
    findings = (
        f"{who.capitalize()} take {slow} on average, all requests {usual}.",
        f"{percent(shares[tail, worst] / 100)} of the TTFT of {who} is {PARTS[worst][1]}.",
    )
    layouts = (_bar_layout("mean TTFT (s)"), _bar_layout("share of TTFT (%)", range=[0, 100]))
    return [
        Figure(keys[i], titles[i], read[i], findings[i], _bars(labels, columns, unit), layouts[i])
        for i, (columns, unit) in enumerate(((means, "s"), (shares, "%")))
    ]


def _where_waits_are(run: RunData) -> str:
    """In which part of TTFT the waits for KV are that are not in its load time."""
    text = ""
    if section(section(run.scenario, "engine"), "loading").get("mode") == "layerwise":
        text += " Layer-wise loading: a prefill waits for its layers, so the load is part of it."
    stop = section(section(run.scenario, "policies"), "prefetch").get("stop")
    if stop in ("wait_complete", "timeout"):
        text += f" Prefetches with stop: {stop}: a request waits for its fetch in the queue."
    return text


def _bars(labels: list[str], columns: Floats, unit: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": labels,
            "x": values(columns[:, i]),
            "marker": {"color": color},
            "hovertemplate": f"%{{fullData.name}}  %{{x:,.4~r}} {unit}<extra>%{{y}}</extra>",
        }
        for i, (_, name, color) in enumerate(PARTS)
    ]


def _bar_layout(x_title: str, **x_more: Any) -> dict[str, Any]:
    return {
        "barmode": "stack",
        "bargap": 0.35,
        "hovermode": "closest",
        "xaxis": {"title": {"text": x_title}, "zeroline": False, **x_more},
        "yaxis": {"autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
    }


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
    low, high = _log_range(x, [t[1] for t in targets])
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
        "xaxis": _log_axis(f"{label} (log scale)", low, high),
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


def _log_range(x: Floats, more: list[float]) -> tuple[float, float]:
    """log10 limits with a little air, at least one decade wide."""
    low, high = math.log10(min([float(x[0]), *more])) - 0.08, math.log10(max([float(x[-1]), *more])) + 0.08
    air = max(0.0, 1.0 - (high - low)) / 2
    return low - air, high + air


def _log_axis(title: str, low: float, high: float) -> dict[str, Any]:
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
    read = f"Median and p99 TTFT of the requests that arrived in each bin ({axis.every})."
    if not run.finished.rows:
        return Figure(key, title, read, empty=NOTHING)
    p50, p99 = b.percentiles(axis.bins, run.finished["arrival_s"], run.finished["ttft_s"], (50.0, 99.0))
    data = [
        line("p99", p99, axis, VERMILLION, "s", connectgaps=True),
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
    finding = f"The worst bin is around {when:.3g} {axis.unit} with a p99 of {seconds(float(p99[peak]))}."
    return Figure(key, title, read, finding, data, layout)
