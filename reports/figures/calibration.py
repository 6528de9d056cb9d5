"""Measured kernel times, what a profile says of them, and what is left: one figure per profile and of all."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calibration.compare import Measured
from calibration.fitting import score
from calibration.points import Points
from reports.figures.base import BLUE, CYCLE, INK, ORANGE, Choice, Figure, hover, plot_text, values, y_axis
from reports.load import Floats
from reports.text import NBSP

MOST, MOST_BESIDE = 500, 100
"""Points drawn per kernel, in a figure of its own and among all others: every k-th of more. So few that browsers draw
them without WebGL, which not every one has."""
X_AXES: Mapping[str, tuple[str, str]] = {
    "gemm": ("m", "rows m"),
    "moe": ("m", "rows per expert"),
    "decode": ("bytes", "bytes of KV"),
    "prefill": ("tokens", "new tokens of the launch"),
    "allreduce": ("bytes", "bytes"),
}
"""What a kind of kernel is drawn over."""
READ = "A point is a measured size of the kernel; above zero the profile is too slow. Held out: no fit has seen it."


def fit_choices(measured: list[Measured]) -> list[Choice]:
    """A figure for each profile, of the kernel that the reader picks: predicted over measured time, fitted and held-out
    points apart, by what the kernel is drawn over."""
    found = []
    for number, profile in enumerate(dict.fromkeys(each.profile for each in measured)):
        own = [each for each in measured if each.profile == profile]
        figures: dict[tuple[int, ...], Figure] = {
            (i,): _residuals(f"kernel-{number}-{i}", each) for i, each in enumerate(own)
        }
        menus = [("Kernel", [each.points.name for each in own])]
        found.append(Choice(f"kernels-{number}", f"{profile}: errors by kernel", READ, menus, figures))
    return found


def scatter_figure(measured: list[Measured]) -> Figure:
    """All kernels of all profiles: predicted against measured seconds on held-out points."""
    data = []
    low, high = np.inf, 0.0
    for i, profile in enumerate(dict.fromkeys(each.profile for each in measured)):
        parts = []
        for each in (each for each in measured if each.profile == profile):
            held = _thin(each.points.take(~each.points.fitted), MOST_BESIDE)
            parts.append((held.seconds, held.predict(each.model)))
        seconds, predicted = (np.concatenate(part) for part in zip(*parts, strict=True))
        low, high = min(low, seconds.min(initial=np.inf)), max(high, seconds.max(initial=0.0))
        data.append(_markers(profile, seconds, predicted, CYCLE[i % len(CYCLE)]))
    line = {"x": [low, high], "y": [low, high], "type": "scatter", "mode": "lines", "name": "equal"}
    layout = {
        "xaxis": {"type": "log", "title": {"text": "measured (s)"}},
        "yaxis": y_axis("predicted (s)", type="log"),
        "hovermode": "closest",
    }
    read = "Each point is a measurement that no fit has seen. On the line the profile is exact."
    return Figure("held-out", "Predicted and measured", read, "", [*data, {**line, "line": {"color": INK}}], layout)


def _residuals(label: str, each: Measured) -> Figure:
    key, title = X_AXES[each.points.kind]
    data: list[dict[str, Any]] = []
    errors = {}
    for name, color, mask in (("fitted", BLUE, each.points.fitted), ("held out", ORANGE, ~each.points.fitted)):
        part = each.points.take(mask)
        if len(part):
            errors[name] = score(part.predict(each.model), part.seconds).mape
            drawn = _thin(part, MOST)
            off = drawn.predict(each.model) / drawn.seconds - 1
            data.append(_markers(name, drawn.shape[key], 100 * off, color))
    layout = {
        "xaxis": {"type": "log", "title": {"text": title}},
        "yaxis": y_axis("predicted above measured (%)"),
        "hovermode": "closest",
        "shapes": [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": {"color": INK, "width": 1}}
        ],
    }
    said = ", ".join(f"{100 * error:.1f}{NBSP}% {name}" for name, error in errors.items())
    finding = f"Mean error {said}. {each.points.family}: {each.points.what}."
    return Figure(label, f"{each.profile}: {each.points.name}", READ, finding, data, layout)


def _thin(points: Points, most: int) -> Points:
    keep = np.zeros(len(points), dtype=bool)
    keep[:: -(-len(points) // most)] = True
    return points.take(keep)


def _markers(name: str, x: Floats, y: Floats, color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plot_text(name),
        "x": values(x),
        "y": values(y),
        "marker": {"color": color, "size": 4, "opacity": 0.6},
        "hovertemplate": hover(""),
    }
