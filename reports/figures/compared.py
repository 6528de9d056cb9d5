"""Variants in one figure each: distributions, parts of latency, goodput, where prompt tokens came from, links."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from reports import bins as b
from reports.bins import time_bins
from reports.compare_data import Variant, of_whole_runs
from reports.figures.base import CYCLE as TIER_CYCLE
from reports.figures.base import (
    GREY,
    INK,
    Choice,
    Figure,
    Picks,
    line,
    plot_text,
    time_axis,
    time_layout,
    values,
    y_axis,
)
from reports.figures.goodput import meets_slo
from reports.figures.latency import log_axis, log_range
from reports.figures.parts import COLORS, LOADS
from reports.load import section
from reports.text import (
    METRIC_LABELS,
    is_number,
    link_label,
    number,
    part_label,
    percent,
    seconds,
    slo_label,
    tier_label,
)

WORDS = {"ttft": "time to first token", "tpot": "time per output token after the first", "e2e": "time to last token"}
FIRST_SEED = "Metrics of several seeds are means; this shows the run of the first seed."
ROW_PX = 34


def distributions(variants: Sequence[Variant]) -> list[Figure]:
    """TTFT, TPOT and E2E of all variants over each other."""
    return [cdfs(variants, metric) for metric in ("ttft", "tpot", "e2e")]


def cdfs(variants: Sequence[Variant], metric: str) -> Figure:
    """The cumulative distribution of one latency in every variant."""
    label = METRIC_LABELS[metric]
    key, title = f"cdf-{metric}", f"{label}: {WORDS[metric]}"
    read = f"A point (x, y): y % of requests have {label} of x or less. The curve further left is better."
    curves = [(one, *b.cdf(one.judged[f"{metric}_s"])) for one in variants]
    curves = [(one, np.maximum(x, 1e-6), share) for one, x, share in curves if len(x)]
    if not curves:
        return Figure(key, title, read, empty=f"No request has {label}.")
    targets = {
        k: t["target_ms"] / 1e3
        for one in variants
        for k, t in one.run.slo_targets.items()
        if k.startswith(f"{metric}_") and is_number(t.get("target_ms"))
    }
    ends = [float(end) for _, x, _ in curves for end in (x[0], x[-1])]
    low, high = log_range(np.array([min(ends), max(ends)]), list(targets.values()))
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plot_text(one.name),
            "x": values(x),
            "y": values(100 * share),
            "line": one.line,
            "customdata": [seconds(float(v)) for v in x],
            "hovertemplate": "%{fullData.name}  %{y:.2f} % within %{customdata}<extra></extra>",
        }
        for one, x, share in curves
    ]
    shapes = [
        {
            "type": "line",
            "x0": limit,
            "x1": limit,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": INK, "width": 1, "dash": "dash"},
        }
        for limit in targets.values()
    ]
    notes = [
        {
            "x": math.log10(limit),
            "yref": "paper",
            "y": 0.03,
            "yanchor": "bottom",
            "xanchor": "right" if (math.log10(limit) - low) / (high - low) > 0.6 else "left",
            "showarrow": False,
            "text": plot_text(f" SLO {slo_label(name)} ≤ {seconds(limit)} "),
        }
        for name, limit in targets.items()
    ]
    layout = {
        "xaxis": log_axis(f"{label} (log scale)", low, high),
        "yaxis": {"title": {"text": "requests (%)"}, "range": [0, 101], "zeroline": False},
        "hovermode": "closest",
        "shapes": shapes,
        "annotations": notes,
    }
    said = "; ".join(
        f"{one.name} {seconds(b.percentile(one.judged[f'{metric}_s'], 50))} and "
        f"{seconds(b.percentile(one.judged[f'{metric}_s'], 99))}"
        for one, _, _ in curves
    )
    return Figure(key, title, read, f"Median and p99: {said}.", data, layout)


def parts_choice(variants: Sequence[Variant]) -> Choice:
    """What TTFT and E2E are made of, of all requests and of the slowest."""
    read = "Mean time of requests by what they were doing; the parts of a bar add up to the mean. " + FIRST_SEED
    read += of_whole_runs(variants)
    spans, groups = ("ttft", "e2e"), (("all", "all requests"), ("slowest", "slowest 1 %"))
    figures: Picks = {
        (i, j): parts(variants, span, group, read)
        for i, span in enumerate(spans)
        for j, (group, _) in enumerate(groups)
    }
    menus = [("Of", [METRIC_LABELS[span] for span in spans]), ("Requests", [text for _, text in groups])]
    return Choice("parts", "What latency is made of", read, menus, figures)


def parts(variants: Sequence[Variant], span: str, group: str, read: str) -> Figure:
    """A bar of each variant, stacked by part."""
    label = METRIC_LABELS[span]
    found = [section(section(section(one.run.summary, "attribution"), f"{span}_ms"), group) for one in variants]
    names = list(dict.fromkeys(part for one in found for part in section(one, "parts")))
    whole = [float(one.get("mean") or 0) for one in found]
    shown = [
        part
        for part in names
        if any(
            section(one, "parts").get(part, 0) > 0.002 * total for one, total in zip(found, whole, strict=True) if total
        )
    ]
    if not shown:
        return Figure("parts", label, read, empty="No request finished.")
    divisor, unit = (1e3, "s") if max(whole) >= 2000 else (1.0, "ms")
    loads = [part for part in shown if part.startswith("load_")]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plot_text(part_label(variants[0].run.summary, part)),
            "y": [plot_text(one.name) for one in variants],
            "x": values(np.array([float(section(one, "parts").get(part) or 0) for one in found]) / divisor),
            "marker": {
                "color": LOADS[min(loads.index(part), len(LOADS) - 1)] if part in loads else COLORS.get(part, GREY)
            },
            "hovertemplate": f"%{{y}}: %{{fullData.name}} %{{x:,.4~r}} {unit}<extra></extra>",
        }
        for part in shown
    ]
    told = "; ".join(f"{one.name} {seconds(total / 1e3)}" for one, total in zip(variants, whole, strict=True))
    return Figure("parts", label, read, f"Mean {label}: {told}.", data, _bars(f"{label} ({unit})", len(variants)))


def goodput_figure(variants: Sequence[Variant]) -> Figure:
    """Requests per second that meet their SLO (or finish) through the run, a line for each variant."""
    start = min(one.run.start_s for one in variants)
    end = max(one.run.end_s for one in variants)
    axis = time_axis(time_bins(start, end, max(len(one.run.arrivals) for one in variants)))
    slo = all(one.run.slo_targets for one in variants)
    title = "Goodput through the run" if slo else "Finished requests through the run"
    what = "meet every bound of the SLO" if slo else "finish (no SLO is set)"
    read = f"Requests per second that {what} ({axis.every}). {FIRST_SEED}{of_whole_runs(variants)}"
    data = []
    for one in variants:
        done = one.run.finished["finish_s"]
        rate = b.count(axis.bins, done[meets_slo(one.run)] if slo else done) / axis.bins.width
        style = one.line
        trace = line(one.name, rate, axis, style["color"], "requests/s", dash=style["dash"])
        data.append(trace)
    told = "; ".join(
        f"{one.name} {number(section(one.run.summary, 'slo').get('goodput_per_s'), 3)} "
        f"({percent(section(one.run.summary, 'slo').get('attainment'))} of requests)"
        for one in variants
    )
    finding = f"Requests/s in time over the run: {told}." if slo else ""
    return Figure("goodput", title, read, finding, data, time_layout(axis, "requests per second"))


def sources(variants: Sequence[Variant]) -> Figure:
    """Share of prompt tokens by the tier that held their KV."""
    read = f"Share of the prompt tokens of finished requests that each tier had; the rest was computed. {FIRST_SEED}"
    tiers = list(dict.fromkeys(tier for one in variants for tier in one.run.tiers))
    rows: dict[str, list[float]] = {tier: [] for tier in tiers}
    reused = []
    for one in variants:
        asked = float(one.judged["input_tokens"].sum())
        for tier in tiers:
            hits = one.judged.numbers.get(f"hit_{tier}_tokens")
            rows[tier].append(0.0 if hits is None or not asked else 100 * float(hits.sum()) / asked)
        reused.append(sum(found[-1] for found in rows.values()) / 100)
    if not any(any(found) for found in rows.values()):
        return Figure("sources", "Where reused tokens were", read, empty="No variant reused a prompt token.")
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plot_text(tier_label(tier)),
            "y": [plot_text(one.name) for one in variants],
            "x": values(np.array(found)),
            "marker": {"color": TIER_CYCLE[place % len(TIER_CYCLE)]},
            "hovertemplate": "%{y}: %{fullData.name} %{x:,.4~r} %<extra></extra>",
        }
        for place, (tier, found) in enumerate(rows.items())
    ]
    told = "; ".join(f"{one.name} {percent(share)}" for one, share in zip(variants, reused, strict=True))
    layout = _bars("prompt tokens reused (%)", len(variants))
    return Figure("sources", "Where reused tokens were", read, f"Reused: {told}.", data, layout)


def link_choice(variants: Sequence[Variant]) -> Choice | None:
    """Every link in every variant: bytes moved, utilisation, queue; None where nothing moved."""
    names = list(dict.fromkeys(name for one in variants for name in section(one.run.summary, "links")))
    names = [n for n in names if any("queue_p99_ms" in _link(one, n) for one in variants)]
    if not names:
        return None
    read = f"Links of the variants; of several links of a name, all together. {FIRST_SEED}{of_whole_runs(variants)}"
    of = (
        ("bytes", "bytes moved", "GiB", 2**30),
        ("utilization", "utilisation", "%", 0.01),
        ("queue_p99_ms", "queue, p99", "ms", 1),
    )
    figures: Picks = {
        (i,): _links(variants, names, key, f"{what} ({unit})", unit, scale, read)
        for i, (key, what, unit, scale) in enumerate(of)
    }
    return Choice("links", "Links", read, [("Show", [what for _, what, _, _ in of])], figures)


def _link(one: Variant, name: str) -> Any:
    return section(section(one.run.summary, "links"), name)


def _links(
    variants: Sequence[Variant], names: Sequence[str], key: str, title: str, unit: str, scale: float, read: str
) -> Figure:
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plot_text(one.name),
            "y": [plot_text(link_label(name)) for name in names],
            "x": values(np.array([float(_link(one, name).get(key) or 0) / scale for name in names])),
            "marker": {"color": one.line["color"]},
            "hovertemplate": f"%{{fullData.name}}  %{{x:,.4~r}} {unit}<extra>%{{y}}</extra>",
        }
        for one in variants
    ]
    layout = {**_bars(title, len(variants) * len(names)), "barmode": "group"}
    return Figure("links", title, read, "", data, layout)


def _bars(title: str, rows: int) -> dict[str, Any]:
    return {
        "barmode": "stack",
        "bargap": 0.35,
        "hovermode": "closest",
        "height": 130 + ROW_PX * max(3, rows),
        "xaxis": y_axis(title),
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False, "ticksuffix": "  ", "dtick": 1},
    }
