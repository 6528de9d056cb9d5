"""Replicas over time: how many serve, start and drain, and who waits for them."""

import numpy as np

from reports.figures.base import BLUE, GREY, ORANGE, VERMILLION, Figure, TimeAxis, line, time_layout, y_axis
from reports.figures.load import sample_series
from reports.load import RunData, section
from reports.text import number

STATES = (("serving", BLUE), ("starting", ORANGE), ("draining", GREY))


def fleet_figure(run: RunData, axis: TimeAxis) -> Figure:
    """Replicas by state, and requests at the gateway below them."""
    key, title = "replicas", "Replicas over time"
    read = "replicas that serve, start and drain."
    data = []
    for metric, color in STATES:
        times, values = sample_series(run, "fleet", metric)
        data.append(_at(times, line(metric, values, axis, color, "replicas"), axis))
    did = section(run.summary, "fleet")
    waited = did["gateway"]["requests"] > 0
    if waited:
        times, waiting = sample_series(run, "fleet", "gateway")
        data.append(_at(times, line("at the gateway", waiting, axis, VERMILLION, "requests", yaxis="y2"), axis))
        read = f"Top: requests at the gateway, since no replica took them. Bottom: {read}"
    read = read[0].upper() + read[1:]
    finding = (
        f"{number(did['mean_on'], 3)} of {did['max']} replicas are on in the mean, "
        f"{number(did['gpu_hours'], 3)} GPU-hours; {did['starts']} starts."
    )
    layout = time_layout(axis, "replicas", domain=[0, 0.6 if waited else 1])
    if waited:
        layout["yaxis2"] = y_axis("requests", domain=[0.7, 1])
    return Figure(key, title, read, finding, data, layout)


def _at(times: np.ndarray, trace: dict[str, object], axis: TimeAxis) -> dict[str, object]:
    """The trace at the times of the samples, as steps."""
    plain = {name: value for name, value in trace.items() if name not in ("x0", "dx")}
    return {**plain, "x": axis.at(times), "line": {**dict(plain.get("line") or {}), "shape": "hv"}}  # type: ignore[call-overload]
