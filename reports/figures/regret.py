"""Seconds of loading and computing by policy: what everyone must spend, what was avoidable, and the bound."""

from typing import Any

import numpy as np

from reports.figures.base import CYCLE, GREY, INK, VERMILLION, Figure, plot_text, values
from reports.text import NBSP, seconds, tier_label
from sim.cache.regret import Regret
from sim.cache.study import BELADY

ROW_PX = 34
"""Height of a bar with its gap."""
BOUND = "least possible"
"""The bar of the bound."""


def regret_figures(study: Regret) -> list[Figure]:
    """Avoidable seconds by policy with the bound, then prompt tokens by where they came from."""
    return [_seconds(study), _tokens(study)]


def _seconds(study: Regret) -> Figure:
    first = study.bound.first_s
    title = "Seconds beyond what everyone computes"
    read = (
        f"Loading from tiers, and computing again what had been computed before. {seconds(first)} of computing are not "
        "shown: tokens that are used for the first time, or that no cache serves, cost every policy the same. The last "
        "bar and the dashed line are the least that any policy could need."
    )
    again = np.array([row.compute_s - first for row in study.rows])
    data = [
        _bar(study, f"loaded from {tier_label(tier.name)}", _loads(study, tier.name, tier.load_s_per_token), i)
        for i, tier in enumerate(study.tiers)
        if tier.load_s_per_token
    ]
    data.append(_bar(study, "computed again", np.maximum(again, 0.0), color=VERMILLION))
    limit = study.bound.seconds - first
    data.append(_bar(study, BOUND, np.array([limit]), color=INK) | {"y": [BOUND]})
    most = max(limit, *(row.seconds - first for row in study.rows))
    rule = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": limit, "x1": limit}
    layout = _layout(study, "seconds", [0, 1.05 * most or 1.0]) | {
        "shapes": [rule | {"line": {"color": INK, "width": 1.5, "dash": "dash"}}]
    }
    return Figure("regret-seconds", title, read, _finding(study), data, layout)


def _tokens(study: Regret) -> Figure:
    total = study.input_tokens
    data = [
        _bar(study, f"{tier_label(t.name)} hit", _hits(study, t.name) * 100 / total, i, unit="%")
        for i, t in enumerate(study.tiers)
    ]
    computed = np.array([100 * row.computed_tokens / total for row in study.rows])
    data.append(_bar(study, "computed", computed, color=GREY, unit="%"))
    read = "Share of prompt tokens by the nearest tier that held their KV when the prompt came, or computed."
    return Figure(
        "regret-tokens", "Where prompt tokens come from", read, "", data, _layout(study, "prompt tokens (%)", [0, 100])
    )


def _finding(study: Regret) -> str:
    rows = [row for row in study.rows if row.policy != BELADY] or study.rows
    best, worst = (pick(rows, key=lambda row: row.regret) for pick in (min, max))
    if len(rows) == 1:
        return f"{best.policy}: regret {surplus(best.regret)}."
    return f"Least regret: {best.policy}, {surplus(best.regret)}; most: {worst.policy}, {surplus(worst.regret)}."


def surplus(regret: float) -> str:
    """A regret in per cent: one decimal, two below 10 %."""
    return f"{100 * regret:.{1 if regret >= 0.1 else 2}f}{NBSP}%"


def _hits(study: Regret, tier: str) -> np.ndarray:
    return np.array([float(row.hit_tokens[tier]) for row in study.rows])


def _loads(study: Regret, tier: str, price_s: float) -> np.ndarray:
    return _hits(study, tier) * price_s


def _bar(
    study: Regret, name: str, lengths: np.ndarray, index: int = 0, *, color: str = "", unit: str = "s"
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": plot_text(name),
        "x": values(lengths),
        "y": [plot_text(row.policy) for row in study.rows],
        "marker": {"color": color or CYCLE[index % (len(CYCLE) - 1)]},
        "hovertemplate": f"%{{fullData.name}}  %{{x:,.4~r}} {unit}<extra>%{{y}}</extra>",
    }


def _layout(study: Regret, title: str, span: list[float]) -> dict[str, Any]:
    return {
        "barmode": "stack",
        "bargap": 0.35,
        "hovermode": "closest",
        "height": max(260, 150 + ROW_PX * len(study.rows)),
        "xaxis": {"title": {"text": title}, "range": span, "zeroline": False},
        "yaxis": {"type": "category", "autorange": "reversed", "zeroline": False, "automargin": True},
    }
