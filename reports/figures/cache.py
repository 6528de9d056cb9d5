"""Cache: where prompt tokens came from through the run, and how full every tier is."""

from typing import Any

import numpy as np

from reports import bins as b
from reports.figures.base import (
    BLUE,
    CYCLE,
    DASHES,
    GREY,
    VERMILLION,
    Figure,
    TimeAxis,
    area,
    level_line,
    line,
    time_layout,
    values,
    y_axis,
)
from reports.figures.load import sample_series
from reports.figures.rounds import rounds_figure
from reports.load import Floats, RunData, section
from reports.text import binary_bytes, binary_unit, is_number, number, percent, tier_label


def cache_figures(run: RunData, axis: TimeAxis) -> list[Figure]:
    """The cache section, top to bottom."""
    turns = rounds_figure(run) or hits_by_turn(run)
    occupied = (occupancy(run, axis, tier) for tier in run.tiers)
    return [*token_sources(run, axis), *([turns] if turns else []), *occupied]


def tier_color(run: RunData, tier: str) -> str:
    """The colour of a tier, the same in every figure."""
    return CYCLE[run.tiers.index(tier) % len(CYCLE)]


def token_sources(run: RunData, axis: TimeAxis) -> list[Figure]:
    """Prompt tokens by source, binned by admission: tokens per second, and hit ratio by tier."""
    keys = ("token-sources", "hit-ratio")
    titles = ("Where prompt tokens come from", "Hit ratio by tier")
    read = (
        f"Prompt tokens admitted per second ({axis.every}), by the tier that held their KV, or computed.",
        "Share of the prompt tokens admitted in each bin whose KV a tier held; the higher, the less prefill.",
    )
    done = run.finished
    if not done.rows:
        return [
            Figure(k, t, r, empty="No request finished in this run.")
            for k, t, r in zip(keys, titles, read, strict=True)
        ]
    width, admitted = axis.bins.width, done["admit_s"]
    hits: dict[str, Floats] = {}
    for tier in run.tiers:
        column = done.numbers.get(f"hit_{tier}_tokens")
        if column is not None:
            hits[tier] = b.count(axis.bins, admitted, column)
    computed = b.count(axis.bins, admitted, done["computed_tokens"])
    asked = b.count(axis.bins, admitted, done["input_tokens"])
    stack = [area(f"{tier_label(t)} hit", h / width, axis, tier_color(run, t), "tokens/s") for t, h in hits.items()]
    stack.append(area("computed", computed / width, axis, GREY, "tokens/s"))
    ratios = [
        line(tier_label(t), 100 * _ratio(h, asked), axis, tier_color(run, t), "%", dash=DASHES[i % len(DASHES)])
        for i, (t, h) in enumerate(hits.items())
    ]
    total = max(float(asked.sum()), 1.0)
    found = ", ".join(f"{percent(float(h.sum()) / total)} in {tier_label(t)}" for t, h in hits.items())
    finding = f"Over the run: {found}." if hits else ""
    missed = f"{percent(float(computed.sum()) / total)} of all prompt tokens were computed."
    ceiling = max((float(np.nanmax(100 * _ratio(h, asked), initial=0.0)) for h in hits.values()), default=0.0)
    return [
        Figure(keys[0], titles[0], read[0], missed, stack, time_layout(axis, "prompt tokens per second")),
        Figure(
            keys[1],
            titles[1],
            read[1],
            finding,
            ratios,
            time_layout(axis, "prompt tokens (%)", range=[0, min(100.0, max(5.0, 1.1 * ceiling))]),
        ),
    ]


def hits_by_turn(run: RunData) -> Figure | None:
    """Hit ratio by turn of the conversation, stacked by tier; None for a trace without conversations."""
    turns = section(run.summary, "prefix").get("turns")
    if not turns:
        return None
    labels = [f"{t['turn']}{'+' if t['and_later'] else ''}" for t in turns]
    asked = np.array([max(1, t["input_tokens"]) for t in turns], dtype=np.float64)
    hits = {tier: np.array([t["hit_tokens"].get(tier, 0) for t in turns], dtype=np.float64) for tier in run.tiers}
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": tier_label(tier),
            "x": labels,
            "y": values(100 * found / asked),
            "marker": {"color": tier_color(run, tier)},
            "customdata": [number(t["requests"]) for t in turns],
            "hovertemplate": "%{fullData.name}  %{y:,.4~r} % <extra>turn %{x}, %{customdata} requests</extra>",
        }
        for tier, found in hits.items()
    ]
    total = np.sum(list(hits.values()), axis=0)
    later = float(total[1:].sum() / asked[1:].sum()) if len(turns) > 1 else float("nan")
    finding = f"First turns reuse {percent(float(total[0] / asked[0]))} of their prompts, later ones {percent(later)}."
    layout = {
        "barmode": "stack",
        "bargap": 0.3,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "turn of the conversation"}, "type": "category", "dtick": 1, "zeroline": False},
        "yaxis": y_axis("prompt tokens (%)", range=[0, 100]),
    }
    read = "Share of the prompt tokens of each turn whose KV a tier held; the first turn is 1."
    return Figure("hit-turns", "Hit ratio by turn", read, finding, data, layout)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def occupancy(run: RunData, axis: TimeAxis, tier: str) -> Figure:
    """Used and pinned bytes of one tier, summed over its instances, with its capacity."""
    label = tier_label(tier)
    key, title = f"occupancy-{run.tiers.index(tier)}", f"{label} occupancy"
    instances = _instances(run, tier)
    where = f", over its {instances} instances" if instances > 1 else ""
    read = f"KV bytes held in {label}{where}; pinned blocks are in use and cannot be evicted."
    times, used = sample_series(run, "tier", "used_bytes", tier)
    if not len(times):
        return Figure(key, title, read, empty=f"This run holds no samples of {label}.")
    capacity = section(section(run.summary, "tiers"), tier).get("capacity_bytes")
    top = float(capacity) if is_number(capacity) and capacity else float(used.max())
    divisor, unit = binary_unit(top)
    data = [_sampled("used", times, used / divisor, axis, tier_color(run, tier), unit, fill="tozeroy")]
    pin_times, pinned = sample_series(run, "tier", "pinned_bytes", tier)
    if len(pin_times) and pinned.max() > 1e-3 * top:
        pin_color = VERMILLION if tier_color(run, tier) != VERMILLION else BLUE
        data.append(_sampled("pinned", pin_times, pinned / divisor, axis, pin_color, unit, dash="dash"))
    peak = float(used.max())
    layout = time_layout(axis, f"KV held ({unit})")
    finding = f"Highest sample {binary_bytes(peak)}."
    if is_number(capacity) and capacity:
        shape, note = level_line(capacity / divisor, f"capacity {binary_bytes(capacity)}")
        layout |= {"shapes": [shape], "annotations": [note]}
        layout["yaxis"]["range"] = [0, 1.12 * max(capacity, peak) / divisor]
        finding = f"Highest sample {binary_bytes(peak)}, {percent(peak / capacity)} of capacity."
    return Figure(key, title, read, finding, data, layout)


def _instances(run: RunData, tier: str) -> int:
    return sum(1 for name in run.samples.texts["object"].names if name.startswith(tier + "/"))


def _sampled(name: str, times: Floats, y: Floats, axis: TimeAxis, color: str, unit: str, **more: Any) -> dict[str, Any]:
    trace = line(name, y, axis, color, unit, **more)
    del trace["x0"], trace["dx"]
    if more.get("fill"):
        trace["fillcolor"] = f"{color}-soft"
    return {**trace, "x": axis.at(times)}
