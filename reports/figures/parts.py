"""Where requests' time went: TTFT and E2E by part, for requests grouped by rank."""

import math
from typing import Any

import numpy as np

from reports.figures.base import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    TEAL,
    VERMILLION,
    Figure,
    plot_text,
    values,
)
from reports.load import Floats, RunData, section
from reports.text import part_label, percent, seconds
from sim.attribution_summary import parts_of

GROUPS = (
    ("fastest half", 0.0, 0.5),
    ("p50 to p90", 0.5, 0.9),
    ("p90 to p99", 0.9, 0.99),
    ("slowest 1 %", 0.99, 1.0),
)
COLORS = {
    "queue": VERMILLION,
    "gateway_wait": INK,
    "prefetch_wait": BROWN,
    "prefill": BLUE,
    "handoff_memory": BROWN,
    "handoff_transfer": ORANGE,
    "handoff_place": GREY,
    "decode": GREEN,
    "decode_beside": TEAL,
    "recompute": PURPLE,
    "preempted": INK,
    "copies": SKY,
    "layer_wait": ORANGE,
    "kv_moves": ORANGE,
    "store_wait": GREY,
}
"""By part, but for loads; of these only the layer-wise wait shares a colour with them, and never both are there."""
LOADS = (ORANGE, BROWN, GREY)
"""From the nearest tier on; tiers behind the third share its colour."""
SHOWN = 0.002
"""Parts that are less than this of every bar are in the table alone."""
NOTHING = "No request finished in this run."
WORDS = {"ttft": "TTFT", "e2e": "E2E"}


def part_figures(run: RunData) -> list[Figure]:
    """TTFT by part in seconds and as shares, then E2E in seconds."""
    return [_figure(run, "ttft"), _figure(run, "ttft", shares=True), _figure(run, "e2e")]


def split_groups(run: RunData, span: str) -> tuple[list[str], list[str], Floats]:
    """Mean seconds of each part of a `span` (ttft, e2e) by rank in it; the mean of all requests last.

    Returns labels[g], parts[p] and float64[g, p]; groups too small to hold a request are left out.
    """
    columns = run.finished.numbers
    loaded = [tier for tier in run.tiers[1:] if f"load_{tier}_s" in columns]
    named = parts_of(span, columns, [*run.tiers[:1], *loaded])
    order = np.argsort(run.finished[f"{span}_s"], kind="stable")
    count = len(order)
    parts = np.stack(list(named.values()), axis=1)[order]
    labels, means = [], []
    for label, low, high in GROUPS:
        rows = parts[math.ceil(low * count) : math.ceil(high * count)]
        if len(rows):
            labels.append(label)
            means.append(rows.mean(axis=0))
    return [*labels, "all requests"], list(named), np.array([*means, parts.mean(axis=0)])


def _figure(run: RunData, span: str, *, shares: bool = False) -> Figure:
    word = WORDS[span]
    key, title = (f"{span}-shares", f"Shares of {word}") if shares else (f"{span}-split", f"What {word} is made of")
    read = "The same groups, each scaled to 100 %: compare bars to see what sets slow requests apart."
    if not shares:
        read = f"Mean time by what the request was doing, for requests grouped by {word} rank." + _where_waits_are(run)
    if not run.finished.rows:
        return Figure(key, title, read, empty=NOTHING)
    labels, parts, means = split_groups(run, span)
    total = means.sum(axis=1, keepdims=True)
    tail, worst = len(labels) - 2, int(np.argmax(means[-2]))
    who = "the slowest 1 % of requests" if labels[tail] == "slowest 1 %" else "the slowest requests"
    finding = (
        f"{who.capitalize()} take {seconds(float(total[tail, 0]))} on average, "
        f"all requests {seconds(float(total[-1, 0]))}."
    )
    if not shares:
        return Figure(
            key, title, read, finding, part_bars(run, labels, parts, means, "s"), part_layout(f"mean {word} (s)")
        )
    scaled = 100.0 * np.divide(means, total, out=np.zeros_like(means), where=total > 0)
    what = part_label(run.summary, parts[worst])
    finding = f"{percent(scaled[tail, worst] / 100)} of the {word} of {who} is {what}."
    layout = part_layout(f"share of {word} (%)", range=[0, 100])
    return Figure(key, title, read, finding, part_bars(run, labels, parts, scaled, "%"), layout)


def _where_waits_are(run: RunData) -> str:
    """Which waits for KV are not in the parts for loading."""
    text = " A wait for loads counts to the tier whose KV came last."
    mode = section(section(run.scenario, "engine"), "loading").get("mode")
    if mode == "layerwise":
        text = " Layer-wise loading: a prefill waits for its layers, and that is all that loading costs it."
    elif mode == "synchronous":
        text = " Synchronous loading: a step waits for the loads of those that begin in it, and counts as prefill."
    return text if len(run.tiers) > 1 else ""


def part_bars(run: RunData, labels: list[str], parts: list[str], columns: Floats, unit: str) -> list[dict[str, Any]]:
    """A layer of the bars for each part that can be seen in one of them; columns: float64[labels, parts]."""
    loads = [part for part in parts if part.startswith("load_")]
    return [
        {
            "type": "bar",
            "orientation": "h",
            "name": plot_text(part_label(run.summary, part)),
            "y": labels,
            "x": values(columns[:, i]),
            "marker": {"color": COLORS.get(part) or LOADS[min(loads.index(part), len(LOADS) - 1)]},
            "hovertemplate": f"%{{fullData.name}}  %{{x:,.4~r}} {unit}<extra>%{{y}}</extra>",
        }
        for i, part in enumerate(parts)
        if (columns[:, i] > SHOWN * columns.sum(axis=1)).any()
    ]


def part_layout(x_title: str, **x_more: Any) -> dict[str, Any]:
    """Stacked bars that lie, the first group at the top."""
    return {
        "barmode": "stack",
        "bargap": 0.35,
        "hovermode": "closest",
        "xaxis": {"title": {"text": x_title}, "zeroline": False, **x_more},
        "yaxis": {"autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
    }
