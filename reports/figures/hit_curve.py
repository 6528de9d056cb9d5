"""Hit ratio against cache capacity: one line per policy, and the bounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hw_profiles.units import text_tokens
from reports.figures.base import CYCLE, DASHES, INK, Figure, hover, level_line, plot_text, values, y_axis
from reports.text import NBSP
from sim.cache.study import BELADY, Row, Study

TICKS = (1, 2, 5)
"""Mantissas of axis labels; fewer when the axis spans many decades."""


def hit_curves(study: Study) -> list[Figure]:
    """Prefix hits in tokens, then block hits, by capacity."""
    return [
        _figure(
            study,
            "hit-ratio",
            "Hit ratio",
            "Share of input tokens that a cache of this capacity had as a leading run of blocks when the request "
            "arrived. Belady's line bounds block hits and not this share; unbounded bounds both.",
            "input tokens (%)",
        ),
        _figure(
            study,
            "block-hit-ratio",
            "Block hit ratio",
            "Share of block accesses, one by one, whose block was resident. No policy can be above belady, which "
            "knows the future and may refuse a block.",
            "block accesses (%)",
        ),
    ]


def _figure(study: Study, key: str, title: str, read: str, y_title: str) -> Figure:
    names = [name for name in study.policies if name != BELADY]
    looks = [(color, dash) for dash in DASHES for color in CYCLE]
    curves = [(name, study.curve(name), *looks[i % len(looks)]) for i, name in enumerate(names)]
    if study.belady:
        curves.append((BELADY, study.curve(BELADY), INK, "dot"))
    sizes = sorted(size for size in study.capacities if size is not None)
    ceiling = ratio(study.unbounded, key)
    if not sizes:
        return Figure(key, title, read, empty="Only the unbounded cache was asked for.")
    shape, note = level_line(100 * ceiling, f"unbounded {share(ceiling)}")
    layout = {
        "xaxis": _x_axis(sizes),
        "yaxis": y_axis(y_title, range=[0, max(1.0, 112 * ceiling)]),
        "hovermode": "x unified",
        "shapes": [shape],
        "annotations": [note],
    }
    data = [_line(name, curve, key, color, dash) for name, curve, color, dash in curves]
    return Figure(key, title, read, _finding(study, names, key), data, layout)


def ratio(row: Row, key: str) -> float:
    """The ratio of a row that the figure `key` shows."""
    return row.hit_ratio if key == "hit-ratio" else row.block_hit_ratio


def share(value: float) -> str:
    """A ratio in per cent with one decimal: differences between policies are often below one per cent."""
    return f"{100 * value:.1f}{NBSP}%"


def _line(name: str, curve: Sequence[Row], key: str, color: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plot_text(name),
        "x": [row.capacity_tokens for row in curve],
        "y": values(np.array([100 * ratio(row, key) for row in curve])),
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {"color": color, "size": 5},
        "hovertemplate": hover("%"),
    }


def _x_axis(sizes: Sequence[int]) -> dict[str, Any]:
    """A logarithmic axis over `sizes` (tokens, ascending) with labels such as `10 Mtok`."""
    low, high = np.log10(sizes[0]), np.log10(sizes[-1])
    margin = max(0.05 * (high - low), 0.1)
    low, high = low - margin, high + margin
    decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    marks = TICKS if high - low <= 1.5 else (1, 3) if high - low <= 3 else (1,)
    ticks = [mark * 10**decade for decade in decades if decade >= 0 for mark in marks]
    ticks = [tick for tick in ticks if low <= np.log10(tick) <= high] or [sizes[0]]
    return {
        "type": "log",
        "title": {"text": "cache capacity"},
        "range": [round(float(low), 4), round(float(high), 4)],
        "tickvals": ticks,
        "ticktext": [text_tokens(tick) for tick in ticks],
        "zeroline": False,
        "unifiedhovertitle": {"text": "%{x:,} tokens"},
    }


def _finding(study: Study, names: Sequence[str], key: str) -> str:
    """Where the choice of a policy matters most."""
    worst_gap, text = 0.0, ""
    curves = {name: study.curve(name) for name in names}
    for i, _ in enumerate(next(iter(curves.values()), ())):
        ranked = sorted((ratio(curve[i], key), name) for name, curve in curves.items())
        (least, last), (most, first) = ranked[0], ranked[-1]
        size = text_tokens(next(iter(curves.values()))[i].capacity_tokens or 0)
        if most - least > worst_gap:
            worst_gap = most - least
            text = f"Policies differ most at {size}: {first} {share(most)}, {last} {share(least)}."
    return text
