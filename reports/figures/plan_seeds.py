"""The answer of a plan and its neighbours, seed by seed."""

import math
from typing import Any

import numpy as np

from reports.figures.base import BLUE, GREY, Choice, Figure, Picks, level_line, plot_text, values
from reports.figures.plan_search import limit_text
from reports.plan_data import ATTAINMENT, PlanData, Searched, target_label
from reports.sweep_data import log_axis, wide
from reports.text import seconds

READ = (
    "The answer and its neighbours with other seeds: each dot is one draw of the load, the bar the 90 % interval of "
    "their mean. Dots on both sides of the line: which value is enough depends on luck."
)


def seeds_choice(data: PlanData) -> Choice | None:
    """Each target of the answer and its neighbours, seed by seed; None where that was not asked for."""
    shown = [one for one in data.searches if one.seeds]
    if not shown:
        return None
    shown.sort(key=lambda one: one is not data.best)
    targets = [key for key in dict.fromkeys(key for one in shown for key in one.targets) if key != ATTAINMENT]
    figures: Picks = {(i, j): over_seeds(one, key) for i, one in enumerate(shown) for j, key in enumerate(targets)}
    menus = [("Variant", [one.label for one in shown]), ("Target", [target_label(key) for key in targets])]
    return Choice("seeds", "Over seeds", READ, menus, figures)


def over_seeds(search: Searched, key: str) -> Figure:
    """One target, seed by seed."""
    title = f"{search.label}: {target_label(key)} over seeds"
    dots = [
        (one.shown, value, seed, met)
        for one in search.seeds
        for value, seed, met in zip(one.values.get(key, ()), one.seeds, one.met, strict=True)
        if value is not None
    ]
    means = [
        (one.shown, float(np.mean(found)), one.intervals.get(key))
        for one in search.seeds
        if (found := [v for v in one.values.get(key, ()) if v is not None])
    ]
    if not dots:
        return Figure("seeds", title, READ, empty="No run has a value.")
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "one seed",
            "x": [plot_text(shown) for shown, *_ in dots],
            "y": values(np.array([value for _, value, *_ in dots])),
            "marker": {
                "color": GREY,
                "size": 9,
                "symbol": ["circle" if met else "circle-open" for *_, met in dots],
            },
            "customdata": [
                plot_text(f"{shown}, seed {seed}: {seconds(value)}, SLO {'met' if met else 'missed'}")
                for shown, value, seed, met in dots
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean, 90 % interval",
            "x": [plot_text(shown) for shown, *_ in means],
            "y": values(np.array([mean for _, mean, _ in means])),
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [0.0 if ends is None else ends[1] - mean for _, mean, ends in means],
                "arrayminus": [0.0 if ends is None else mean - ends[0] for _, mean, ends in means],
                "color": BLUE,
                "thickness": 2,
                "width": 9,
            },
            "marker": {"color": BLUE, "size": 9, "symbol": "diamond"},
            "customdata": [plot_text(f"{shown}: mean {seconds(mean)}") for shown, mean, _ in means],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
    ]
    level = search.targets[key]
    shape, note = level_line(level, f"SLO {limit_text(search, key)}")
    drawn = [*(value for _, value, *_ in dots), level]
    axis: dict[str, Any] = log_axis(drawn) if wide(drawn) else {"rangemode": "tozero", "zeroline": False}
    if axis.get("type") == "log":
        note["y"] = math.log10(level)
    layout = {
        "hovermode": "closest",
        "shapes": [shape],
        "annotations": [note],
        "xaxis": {"title": {"text": plot_text(search.path)}, "type": "category", "zeroline": False},
        "yaxis": {"title": {"text": plot_text(f"{target_label(key)} (s)")}, **axis},
    }
    told = [f"{one.shown} meets the SLO with {sum(one.met)} of {len(one.met)} seeds" for one in search.seeds]
    return Figure("seeds", title, READ, f"{'; '.join(told)}.", data, layout)
