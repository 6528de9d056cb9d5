"""What was served in time, and what users felt at each load: goodput, and throughput against interactivity."""

import numpy as np
import numpy.typing as npt

from reports import bins as b
from reports.figures.base import BLUE, GREY, VERMILLION, Figure, TimeAxis, area, line, time_layout, values, y_axis
from reports.load import RunData, section
from reports.text import is_number, number, percent, seconds


def meets_slo(run: RunData) -> npt.NDArray[np.bool_]:
    """Bool[finished]: the request meets every per-request bound of the SLO itself, as `summary["slo"]` counts them.

    Inter-token latency has no bound per request.
    """
    ok = np.ones(run.finished.rows, dtype=bool)
    for key, target in run.slo_targets.items():
        column = run.finished.numbers.get(f"{key.rpartition('_')[0]}_s")
        if column is not None and is_number(target.get("target_ms")):
            ok &= ~(column > target["target_ms"] / 1e3)
    return ok


def goodput(run: RunData, axis: TimeAxis) -> Figure:
    """Requests that finish per second, and those of them that meet the SLO."""
    key, title = "goodput", "Goodput"
    read = f"Requests that finish per second ({axis.every}); the gap between line and area came too late."
    if not run.slo_targets:
        return Figure(
            key, title, read, empty="No SLO is set, so every finished request counts: see requests per second."
        )
    done = run.finished["finish_s"]
    finished = b.count(axis.bins, done) / axis.bins.width
    good = b.count(axis.bins, done[meets_slo(run)]) / axis.bins.width
    data = [
        area("within the SLO", good, axis, BLUE, "requests/s"),
        line("finished", finished, axis, GREY, "requests/s", dash="dot"),
    ]
    slo, rate = section(run.summary, "slo"), section(run.summary, "throughput").get("requests_per_s")
    finding = (
        f"{number(slo.get('goodput_per_s'), 3)} of {number(rate, 3)} requests per second over the run; "
        f"{percent(slo.get('attainment'))} of all requests meet every bound."
    )
    return Figure(key, title, read, finding, data, time_layout(axis, "requests per second"))


def interactivity(run: RunData, axis: TimeAxis) -> Figure:
    """Output tokens per second of a GPU against those of a user: a point for each time bin, and the whole run.

    Tokens after the first are spread evenly between a request's first and last token, and so are its seconds of
    decoding: tokens over seconds is what a user sees, whatever the lengths of the answers.
    """
    key, title = "interactivity", "Throughput against interactivity"
    read = (
        f"A point is one bin of the run ({axis.every}): right is faster for each user, up is more from each GPU. "
        "Where points fall to the left as they rise, load costs users speed."
    )
    done = run.finished
    after = np.maximum(done["output_tokens"] - 1, 0.0)
    start, end = done["first_token_s"], done["finish_s"]
    made, waited = b.spread(axis.bins, start, end, after, end - start)
    all_made = made + b.count(axis.bins, start)
    gpus = section(run.summary, "hardware").get("gpus")
    gpus = gpus if isinstance(gpus, int) and gpus > 0 else run.replicas
    shown = waited > 1e-3 * axis.bins.width
    if not shown.any():
        return Figure(key, title, read, empty="No request of this run made a second token.")
    users, rate = made[shown] / waited[shown], all_made[shown] / axis.bins.width / gpus
    span = max(run.end_s - run.start_s, 1e-9)
    mean = float(made.sum() / waited.sum()), float(all_made.sum()) / span / gpus
    times = axis.at(axis.bins.centres[shown])
    spelled = "%{y:,.4~r} tokens/s/GPU at %{x:,.4~r} tokens/s/user"
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "time bins",
            "x": values(users),
            "y": values(rate),
            "customdata": times,
            "marker": {"color": BLUE, "size": 7, "opacity": 0.6},
            "hovertemplate": f"{spelled}<extra>at %{{customdata:,.4~r}} {axis.unit}</extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "whole run",
            "x": values(np.array(mean[:1])),
            "y": values(np.array(mean[1:])),
            "marker": {"color": VERMILLION, "size": 12, "symbol": "diamond"},
            "hovertemplate": f"{spelled}<extra>whole run</extra>",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": "output tokens/s per user"}, "rangemode": "tozero", "zeroline": False},
        "yaxis": y_axis("output tokens/s per GPU"),
        "hovermode": "closest",
    }
    finding = (
        f"Over the run a user gets {number(mean[0], 3)} tokens/s (one every {seconds(1 / mean[0])}) and a GPU makes "
        f"{number(mean[1], 3)}."
    )
    return Figure(key, title, read, finding, data, layout)
