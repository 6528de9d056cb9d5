"""A closed loop round by round: hit ratio by tier above TTFT."""

from typing import Any

import numpy as np

from reports.figures.base import BLUE, CYCLE, GREY, INK, VERMILLION, Figure, values, y_axis
from reports.load import RunData
from reports.text import number, percent, seconds, tier_label

SHORT = 0.005
"""A hit ratio that is less by this share of the prompts than with unlimited tiers is one that tiers have cut."""
HEIGHT = 430
LINES = (("p50", BLUE, "solid"), ("mean", GREY, "dot"), ("p90", VERMILLION, "dash"), ("p99", INK, "dashdot"))


def rounds_figure(run: RunData) -> Figure | None:
    """Hit ratio by tier and TTFT of each round of a closed loop; None for an open trace."""
    rounds = [row for row in run.summary.get("rounds") or () if row["requests"]]
    if not rounds:
        return None
    labels = [f"{row['round']}{'+' if row['and_later'] else ''}" for row in rounds]
    asked = np.array([max(1, row["input_tokens"]) for row in rounds], dtype=np.float64)
    best = np.array([100 * row["unlimited_hit_ratio"] for row in rounds], dtype=np.float64)
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": tier_label(tier),
            "x": labels,
            "y": values(100 * np.array([row["hit_tokens"].get(tier, 0) for row in rounds], dtype=np.float64) / asked),
            "marker": {"color": CYCLE[place % len(CYCLE)]},
            "customdata": [number(row["requests"]) for row in rounds],
            "hovertemplate": "%{fullData.name}  %{y:,.4~r} % <extra>round %{x}, %{customdata} requests</extra>",
        }
        for place, tier in enumerate(run.tiers)
    ]
    data.append(_line("unlimited tiers", labels, best, INK, "dot", "y", "%{y:,.4~r} %"))
    for statistic, color, dash in LINES:
        ttft = np.array([row["ttft_ms"][statistic] for row in rounds], dtype=np.float64)
        data.append(_line(f"TTFT {statistic}", labels, ttft, color, dash, "y2", "%{y:,.4~r} ms"))
    layout = {
        "barmode": "stack",
        "bargap": 0.3,
        "height": HEIGHT,
        "hovermode": "closest",
        "xaxis": {
            "title": {"text": "round of the conversation"},
            "type": "category",
            "nticks": 16,
            "zeroline": False,
            "anchor": "y2",
        },
        "yaxis": y_axis("prompt tokens (%)", range=[0, 100], domain=[0.54, 1]),
        "yaxis2": y_axis("TTFT (ms)", domain=[0, 0.44]),
    }
    read = (
        "Above, the share of the prompt tokens of each round whose KV a tier held, and what unlimited tiers would have "
        "held; below, the time to first token of the same requests."
    )
    return Figure("rounds", "Hit ratio and TTFT by round", read, _finding(rounds), data, layout)


def _line(name: str, x: list[str], y: np.ndarray, color: str, dash: str, axis: str, form: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": x,
        "y": values(y),
        "yaxis": axis,
        "line": {"color": color, "dash": dash, "width": 2},
        "marker": {"color": color, "size": 5},
        "hovertemplate": f"%{{fullData.name}}  {form}<extra>round %{{x}}</extra>",
    }


def _finding(rounds: list[dict[str, Any]]) -> str:
    """Until which round the tiers hold all that can be reused, and what that does to TTFT."""
    cut = [row for row in rounds if row["unlimited_hit_ratio"] - row["hit_ratio"] > SHORT]
    last = rounds[-1]
    if not cut:
        return f"The tiers hold all that the rounds reuse: {percent(last['hit_ratio'])} in the last one."
    first = cut[0]
    before = [row for row in rounds if row["round"] < first["round"]]
    held = (
        f"The tiers hold all that is reused up to round {before[-1]['round']}" if before else "From the first round on"
    )
    lost = f"{percent(last['hit_ratio'])} of {percent(last['unlimited_hit_ratio'])} in round {last['round']}"
    ttft = f"; mean TTFT goes from {seconds((before or rounds)[-1]['ttft_ms']['mean'] / 1e3)}" if before else ""
    end = f" to {seconds(last['ttft_ms']['mean'] / 1e3)}" if before else ""
    return f"{held}{', then less' if before else ' tiers hold less than is reused'}: {lost}{ttft}{end}."
