"""Load: requests and tokens per second, how many run and wait, and where the engines' time goes."""

import numpy as np

from reports import bins as b
from reports.figures.base import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    QUIET,
    SKY,
    TEAL,
    VERMILLION,
    Figure,
    TimeAxis,
    area,
    line,
    time_layout,
    y_axis,
)
from reports.load import Floats, RunData, section
from reports.text import number, percent

STEP_PARTS = (
    ("linear_s", "linear layers", BLUE),
    ("attention_s", "attention", GREEN),
    ("exchange_s", "exchange between GPUs", BROWN),
    ("pipeline_s", "waiting for other stages", TEAL),
    ("launch_s", "launches", PURPLE),
    ("interference_s", "slowed by copies", SKY),
    ("layer_wait_s", "waiting for layers", ORANGE),
    ("moves_s", "waiting for KV in a step", VERMILLION),
    ("works_s", "kernels of KV policies", GREY),
)


def load_figures(run: RunData, axis: TimeAxis) -> list[Figure]:
    """The load section, top to bottom."""
    return [request_rate(run, axis), token_rate(run, axis), queue_length(run, axis)]


def request_rate(run: RunData, axis: TimeAxis) -> Figure:
    """Requests that arrive and that finish per second."""
    arrived = b.count(axis.bins, run.arrivals) / axis.bins.width
    finished = b.count(axis.bins, run.finished["finish_s"]) / axis.bins.width
    read = f"Arrivals against completions ({axis.every}): where completions stay below arrivals, work piles up."
    data = [
        line("arrived", arrived, axis, GREY, "requests/s", dash="dot"),
        line("finished", finished, axis, BLUE, "requests/s"),
    ]
    finding = f"Busiest bin: {number(float(arrived.max()), 3)} arrivals per second." if len(run.arrivals) else ""
    return Figure(
        "requests-per-second",
        "Requests per second",
        read,
        finding,
        data,
        time_layout(axis, "requests per second"),
    )


def token_rate(run: RunData, axis: TimeAxis) -> Figure:
    """Input tokens served and output tokens made per second.

    A prompt counts when its first token is out. Output tokens after the first are spread evenly between first
    token and finish, so the sum over bins is the number of tokens of the finished requests.
    """
    done = run.finished
    prompt = b.count(axis.bins, done["first_token_s"], done["input_tokens"])
    first = b.count(axis.bins, done["first_token_s"])
    (rest,) = b.spread(axis.bins, done["first_token_s"], done["finish_s"], np.maximum(done["output_tokens"] - 1, 0.0))
    read = (
        "Top: prompt tokens, cached ones included, counted when the first token is out. "
        f"Bottom: output tokens as they are made ({axis.every})."
    )
    made = first + rest
    data = [
        line("input", prompt / axis.bins.width, axis, ORANGE, "tokens/s", yaxis="y2"),
        line("output", made / axis.bins.width, axis, GREEN, "tokens/s"),
    ]
    layout = time_layout(axis, "output tokens/s", domain=[0, 0.44])
    layout["yaxis2"] = y_axis("input tokens/s", domain=[0.56, 1])
    span = max(run.end_s - run.start_s, 1e-9)
    finding = (
        f"Mean over the run: {number(float(prompt.sum()) / span, 3)} input and "
        f"{number(float(made.sum()) / span, 3)} output tokens per second."
    )
    return Figure("tokens-per-second", "Tokens per second", read, finding, data, layout)


def sample_series(run: RunData, kind: str, metric: str, prefix: str = "") -> tuple[Floats, Floats]:
    """A sampled metric summed over objects: times float64[m] (s) and values float64[m].

    `prefix` keeps the objects of one tier: `hbm` matches `hbm` and `hbm/...`.
    """
    s = run.samples
    mask = s.texts["kind"].mask(kind) & s.texts["metric"].mask(metric)
    if prefix:
        objects = s.texts["object"]
        wanted = [i for i, name in enumerate(objects.names) if name == prefix or name.startswith(prefix + "/")]
        mask &= np.isin(objects.index, wanted)
    times, where = np.unique(s["time_s"][mask], return_inverse=True)
    return times, np.bincount(where, weights=s["value"][mask], minlength=len(times)).astype(np.float64)


def queue_length(run: RunData, axis: TimeAxis) -> Figure:
    """Requests running, loading and waiting, summed over replicas."""
    key, title = "running-waiting", "Running and waiting requests"
    read = "Requests in the running batches, waiting for KV to load, and queued: sums over all replicas."
    data, peaks = [], []
    styles = (("running", BLUE, "solid"), ("loading", ORANGE, "dash"), ("waiting", VERMILLION, "solid"))
    for metric, color, dash in styles:
        times, total = sample_series(run, "replica", metric)
        if not len(times) or (metric == "loading" and not total.any()):
            continue
        trace = line(metric, total, axis, color, "requests", dash=dash)
        del trace["x0"], trace["dx"]
        data.append({**trace, "x": axis.at(times)})
        peaks.append(f"{number(float(total.max()))} {metric}")
    if not data:
        return Figure(key, title, read, empty="This run holds no samples of its replicas.")
    finding = f"Highest of the samples: {', '.join(peaks)}."
    levels = section(run.summary, "queue")
    if levels:
        each = [f"{number(level['mean'])} {name}" for name, level in levels.items()]
        finding = f"{' and '.join(each)} on average, at most {number(levels['waiting']['max'])} waiting. {finding}"
    return Figure(key, title, read, finding, data, time_layout(axis, "requests"))


def engine_time(run: RunData, axis: TimeAxis) -> Figure:
    """Share of replica time in each part of the step and in waits for KV; what is missing to 100 % is idle."""
    key, title = "engine-time", "Replica time through the run"
    read = f"Share of all replicas' time ({axis.every}) by part of the step and by wait; what is left to 100 % is idle."
    s = run.steps
    if not s.rows:
        return Figure(key, title, read, empty="This run has no engine step.")
    start, end = s["start_s"], s["end_s"]
    *parts, busy = b.spread(axis.bins, start, end, *(s[c] for c, _, _ in STEP_PARTS), end - start)
    (stalls,) = b.spread(axis.bins, start - s["stall_s"], start, s["stall_s"])
    layers = [(name, color, part) for (_, name, color), part in zip(STEP_PARTS, parts, strict=True)]
    layers.append(("host", GREY, np.maximum(busy - sum(parts), 0.0)))
    layers.append(("waiting for loads", VERMILLION, load_waits(run, axis)))
    layers.append(("waiting for stores", QUIET, stalls))
    whole = axis.bins.width * run.replicas
    least = 1e-4 * float(busy.sum())  # a layer that nobody could see is left out; the table has it
    data = [area(name, 100 * part / whole, axis, color, "%") for name, color, part in layers if part.sum() > least]
    span = max(run.end_s - run.start_s, 1e-9) * run.replicas
    largest = max(range(len(parts)), key=lambda i: float(parts[i].sum()))
    finding = (
        f"In steps {percent(min(1.0, float(busy.sum()) / span))} of the time; the largest part is "
        f"{STEP_PARTS[largest][1]}, {percent(float(parts[largest].sum() / max(busy.sum(), 1e-9)))} of that."
    )
    layout = time_layout(axis, "share of replica time (%)", range=[0, 100])
    return Figure(key, title, read, finding, data, layout)


def load_waits(run: RunData, axis: TimeAxis) -> Floats:
    """Seconds per bin in which replicas waited for loads, from the running totals of the samples: float64[bins]."""
    times, total = sample_series(run, "replica", "load_wait_s")
    if len(times) < 2:
        return np.zeros(axis.bins.count)
    (waits,) = b.spread(axis.bins, times[:-1], times[1:], np.diff(total))
    return waits
