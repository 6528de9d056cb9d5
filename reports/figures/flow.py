"""Where KV bytes go: a Sankey diagram from computing through the tiers and back, and what was stored in vain."""

from collections import defaultdict
from typing import Any

import numpy as np

from reports.figures.base import BLUE, GREEN, GREY, TEAL, VERMILLION, Figure, plot_text, values
from reports.figures.cache import tier_color
from reports.load import RunData, section
from reports.text import binary_bytes, binary_unit, percent, tier_label

Hops = dict[tuple[str, str], float]
"""Bytes by (tier that they left, tier that they came to)."""
COMPUTED, REUSED, NEVER = "computed", "reused", "never loaded"
TOWARD, AWAY = ("load", "prefetch"), ("store",)


def flow_figures(run: RunData) -> list[Figure]:
    """The flow of KV, then of what each tier stored the part that nobody loaded."""
    return [byte_flow(run), never_loaded(run)]


def hops(run: RunData, reasons: tuple[str, ...]) -> Hops:
    """Bytes moved between tiers for these reasons, from the table of transfers."""
    t = run.transfers
    src, dst, why = t.texts["src"], t.texts["dst"], t.texts["reason"]
    wanted = np.isin(why.index, [i for i, name in enumerate(why.names) if name in reasons])
    found: Hops = {}
    for pair in np.unique(src.index[wanted] * len(dst.names) + dst.index[wanted]).tolist() if wanted.any() else ():
        a, b = divmod(int(pair), len(dst.names))
        rows = wanted & (src.index == a) & (dst.index == b)
        found[src.names[a], dst.names[b]] = float(t["bytes"][rows].sum())
    return found


def flows(run: RunData) -> dict[tuple[str, str], float]:
    """Bytes of every band of the diagram by (from, to).

    Tiers have their names; what comes back through one on its way to the GPU has "back in <tier>". What a tier passes
    on counts as come from behind as far as that much had come, else as its own.
    """
    tiers = section(run.summary, "tiers")
    if not run.tiers or not tiers:
        return {}
    hbm, behind = run.tiers[0], run.tiers[1:]
    toward, away = hops(run, TOWARD), hops(run, AWAY)
    into_hbm = sum(size for (_, to), size in toward.items() if to == hbm)
    bands: dict[tuple[str, str], float] = defaultdict(float)
    bands[COMPUTED, hbm] = _bytes(tiers, hbm, "stored_bytes") - into_hbm
    bands[hbm, REUSED] = _bytes(tiers, hbm, "loaded_bytes")
    for pair, size in away.items():
        bands[pair] += size
    returned: dict[str, float] = defaultdict(float)
    for tier in reversed(behind):  # from the farthest, so that what comes back is known before it is passed on
        out = {to: size for (src, to), size in toward.items() if src == tier}
        passed = min(returned[tier], sum(out.values()))
        for to, size in out.items():
            share = passed * size / sum(out.values())
            target = REUSED if to == hbm else f"back in {tier_label(to)}"
            bands[f"back in {tier_label(tier)}", target] += share
            bands[tier, target] += size - share
            returned[to] += size
        bands[tier, NEVER] += _bytes(tiers, tier, "never_loaded_bytes")
    if not behind:
        bands[hbm, NEVER] = _bytes(tiers, hbm, "never_loaded_bytes")
    return {pair: size for pair, size in bands.items() if size > 0}


def byte_flow(run: RunData) -> Figure:
    """The Sankey diagram."""
    key, title = "byte-flow", "Where KV bytes went"
    read = (
        "Width is bytes over the run. A copy leaves its original behind, and a block may be loaded many times, so more "
        "may leave a tier than came. Never loaded: evicted, or left at the end, before any request or prefetch came."
    )
    bands = flows(run)
    if not bands:
        return Figure(key, title, read, empty="No KV was kept for other requests in this run.")
    names = list(dict.fromkeys(end for pair in bands for end in pair))
    divisor, unit = binary_unit(max(bands.values()))
    data: list[dict[str, Any]] = [
        {
            "type": "sankey",
            "arrangement": "snap",
            "valueformat": ",.4~r",
            "valuesuffix": f" {unit}",
            "textfont": {"color": "--c-ink", "size": 12},
            "node": {
                "label": [_label(run, name) for name in names],
                "color": [_color(run, name) for name in names],
                "pad": 18,
                "thickness": 14,
                "line": {"width": 0},
                "hovertemplate": "%{label}  %{value}<extra></extra>",
            },
            "link": {
                "source": [names.index(a) for a, _ in bands],
                "target": [names.index(b) for _, b in bands],
                "value": values(np.array(list(bands.values())) / divisor),
                "color": [f"{_color(run, b)}-soft" for _, b in bands],
                "hovertemplate": "%{source.label} → %{target.label}  %{value}<extra></extra>",
            },
        }
    ]
    reused = sum(size for (_, to), size in bands.items() if to == REUSED)
    away = sum(size for (src, _), size in hops(run, AWAY).items() if src == run.tiers[0])
    finding = (
        f"{binary_bytes(bands.get((COMPUTED, run.tiers[0]), 0.0))} computed and cached, {binary_bytes(away)} copied "
        f"away from the GPU, {binary_bytes(reused)} reused by prompts."
    )
    return Figure(key, title, read, finding, data, {"hovermode": "closest"})


def never_loaded(run: RunData) -> Figure:
    """Of what each tier stored, the part that was loaded and the part that never was."""
    key, title = "never-loaded", "Stored, and reused later"
    read = (
        "Bytes that came into each tier, over the run. Never loaded: no later request reused them and no prefetch "
        "fetched them. Behind HBM such bytes were stored in vain; in HBM they served the request that computed or "
        "loaded them."
    )
    tiers = section(run.summary, "tiers")
    names = [name for name in run.tiers if _bytes(tiers, name, "stored_bytes") > 0]
    if not names:
        return Figure(key, title, read, empty="No tier stored anything in this run.")
    stored = np.array([_bytes(tiers, name, "stored_bytes") for name in names])
    vain = np.array([_bytes(tiers, name, "never_loaded_bytes") for name in names])
    divisor, unit = binary_unit(float(stored.max()))
    shares = [percent(share) for share in vain / stored]
    parts = (("reused later", np.maximum(stored - vain, 0.0), GREEN), ("never loaded", vain, VERMILLION))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [plot_text(tier_label(tier)) for tier in names],
            "x": values(sizes / divisor),
            "marker": {"color": color},
            "hovertemplate": f"%{{fullData.name}}  %{{x:,.4~r}} {unit}<extra>%{{y}}</extra>",
        }
        for name, sizes, color in parts
    ]
    said = ", ".join(f"{share} in {tier_label(name)}" for name, share in zip(names, shares, strict=True))
    layout = {
        "barmode": "stack",
        "bargap": 0.35,
        "hovermode": "closest",
        "xaxis": {"title": {"text": f"stored ({unit})"}, "zeroline": False},
        "yaxis": {"autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
    }
    return Figure(key, title, read, f"Never loaded: {said}.", data, layout)


def _bytes(tiers: Any, name: str, field: str) -> float:
    return float(section(tiers, name).get(field) or 0)


def _label(run: RunData, name: str) -> str:
    return plot_text(tier_label(name) if name in run.tiers else name)


def _color(run: RunData, name: str) -> str:
    if name in run.tiers:
        return tier_color(run, name)
    return {COMPUTED: GREY, REUSED: TEAL, NEVER: VERMILLION}.get(name, BLUE)
