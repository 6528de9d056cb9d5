"""What differs between runs, and how surely: every metric against the first run, with an interval of the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from sim.whatif.blocks import (
    MIN_BLOCKS,
    REQUESTS_PER_WINDOW,
    Ints,
    busy_period_s,
    draws,
    longest_length,
    window_means,
    windows,
)
from sim.whatif.interval import CONFIDENCE, RESAMPLES, percentile_interval, seeds_interval
from sim.whatif.runs import LATENCIES, Run
from sim.whatif.statistics import resampled
from sim.whatif.window import requests_after, snapshot_s

SAME, LESS, MORE, UNSURE, NO_INTERVAL = "same", "less", "more", "cannot be told apart", "no interval"
ROUNDING = 1e-12
"""Share of a value below which a difference is that of sums in another order."""


@dataclass(frozen=True)
class Difference:
    """A metric of one variant less that of the first; `low` and `high` are the interval, None where there is none.

    verdict: same (but for rounding), less or more (the interval excludes 0), cannot be told apart (it holds 0), no
    interval.
    """

    value: float
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Row:
    """A metric (key, label, unit, better, definition): its value in each variant, and each later one's difference."""

    metric: Mapping[str, Any]
    values: tuple[float | None, ...]
    differences: tuple[Difference | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side. `methods` says how the intervals of each later variant were made.

    since_s  what is judged is of the requests sent after this time, s, when all runs went on from a snapshot; None: of
             whole runs
    """

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    methods: tuple[str, ...]
    summaries: tuple[Mapping[str, Any], ...]
    since_s: float | None = None

    def document(self) -> dict[str, Any]:
        """All of it as one JSON document (schema kvsim-compare/1)."""
        return {
            "schema": "kvsim-compare/1",
            "confidence": CONFIDENCE,
            "since_s": self.since_s,
            "variants": [
                {"label": label, "config_sha256": summary["config_sha256"]}
                for label, summary in zip(self.labels, self.summaries, strict=True)
            ],
            "methods": dict(zip(self.labels[1:], self.methods, strict=True)),
            "metrics": [
                {
                    **{key: row.metric[key] for key in ("key", "label", "unit", "better", "definition")},
                    "values": dict(zip(self.labels, row.values, strict=True)),
                    "differences": {
                        label: None if found is None else asdict(found)
                        for label, found in zip(self.labels[1:], row.differences, strict=True)
                    },
                }
                for row in self.rows
            ],
        }


def compare(groups: Sequence[Sequence[Run]], *, whole: bool = False) -> Comparison:
    """Compare the first group of runs with each later one: a group is one variant, a run for each seed.

    With one run each, runs of the same requests are paired and their windows resampled together; with several, the
    differences of each seed are. Runs that all begin with a snapshot are judged by the requests sent after it, unless
    `whole`. Raises InputError for fewer than two groups.
    """
    if len(groups) < 2:
        raise InputError("nothing to compare", found=len(groups), allowed="two runs or more")
    summaries = tuple(runs[0].summary for runs in groups)
    since_s = None if whole else snapshot_s(groups)
    if since_s is not None:
        groups = [[requests_after(run, since_s) for run in runs] for runs in groups]
    metrics = list({m["key"]: m for runs in groups for m in runs[0].summary["metrics"]}.values())
    values = [{m["key"]: _mean(_values(runs, m["key"])) for m in metrics} for runs in groups]
    columns = [_against(groups[0], runs) for runs in groups[1:]]
    rows = []
    for metric in metrics:
        key = metric["key"]
        shown = tuple(found[key] for found in values)
        found = tuple(
            _difference(shown[0], value, intervals.get(key))
            for value, (intervals, _) in zip(shown[1:], columns, strict=True)
        )
        rows.append(Row(metric, shown, found))
    labels = tuple(runs[0].label for runs in groups)
    return Comparison(labels, tuple(rows), tuple(method for _, method in columns), summaries, since_s)


Intervals = dict[str, tuple[float, float] | None]


def _against(first: Sequence[Run], other: Sequence[Run]) -> tuple[Intervals, str]:
    if len(first) > 1:
        found: Intervals = {}
        for metric in first[0].summary["metrics"]:
            pair = [_values(runs, metric["key"]) for runs in (first, other)]
            if None not in (*pair[0], *pair[1]):
                a, b = (np.array(values, dtype=np.float64) for values in pair)
                found[metric["key"]] = seeds_interval(b - a)
        return found, f"differences of {len(first)} seeds, each with the same load in both (Student's t)"
    if not len(first[0].columns["request_id"]) or not len(other[0].columns["request_id"]):
        return {}, "a run without requests has no interval"
    return _paired(first[0], other[0]) if same_requests(first[0], other[0]) else _unpaired(first[0], other[0])


def same_requests(a: Run, b: Run) -> bool:
    """True if both served the same requests, whenever those arrived."""
    keys = ("request_id", "input_tokens", "output_tokens")
    return all(np.array_equal(a.columns[key], b.columns[key]) for key in keys)


def _paired(a: Run, b: Run) -> tuple[Intervals, str]:
    window, count, width = windows(a.columns["arrival_s"], a.columns["session"])
    series = [window_means(b.columns[n] - a.columns[n], window, count) for n in (f"{n}_s" for n in LATENCIES)]
    series.append(window_means((_hit_tokens(b) - _hit_tokens(a)).astype(np.float64), window, count))
    busy = max(busy_period_s(a.columns), busy_period_s(b.columns))
    length = max(longest_length(series), int(np.ceil(busy / width)))
    blocks = count / length
    if blocks < MIN_BLOCKS:
        return {}, _too_short(len(window), busy, width, count)
    counts = draws(count, length, RESAMPLES, _rng())
    found = _intervals((a, window, counts), (b, window, counts), blocks)
    return found, f"same requests, paired; {RESAMPLES} resamples of blocks of {length * width:.3g} s" + _drift(
        longest_length(series), count
    )


def _unpaired(a: Run, b: Run) -> tuple[Intervals, str]:
    """Different requests: each run is resampled by itself."""
    sides, lengths, least = [], [], float("inf")
    for run in (a, b):
        window, count, width = windows(run.columns["arrival_s"], run.columns["session"])
        busy = busy_period_s(run.columns)
        own = [window_means(run.columns[f"{name}_s"], window, count) for name in LATENCIES]
        length = max(longest_length(own), int(np.ceil(busy / width)))
        if count / length < MIN_BLOCKS:
            return {}, f"different requests; {_too_short(len(window), busy, width, count)}"
        least = min(least, count / length)
        lengths.append(f"{length * width:.3g} s")
        sides.append((run, window, count, length))
    rng = _rng()
    resamples = [(run, window, draws(count, length, RESAMPLES, rng)) for run, window, count, length in sides]
    found = _intervals(resamples[0], resamples[1], least)
    return found, f"different requests, not paired; {RESAMPLES} resamples of blocks of {' and '.join(lengths)}"


Side = tuple[Run, Ints, Ints]


def _intervals(a: Side, b: Side, blocks: float) -> Intervals:
    sides = [resampled(*side) for side in (a, b)]
    found: Intervals = {}
    for key in sides[0].keys() & sides[1].keys():
        values = [_values([side[0]], key)[0] for side in (a, b)]
        if values[0] is not None and values[1] is not None:
            found[key] = percentile_interval(values[1] - values[0], sides[1][key] - sides[0][key], blocks)
    return found


def _difference(first: float | None, value: float | None, interval: tuple[float, float] | None) -> Difference | None:
    if first is None or value is None:
        return None
    change = value - first
    if abs(change) <= ROUNDING * abs(first):
        change = 0.0
    if interval is None:
        return Difference(change, None, None, SAME if change == 0 else NO_INTERVAL)
    low, high = interval
    if change == 0 and low == high == 0:
        return Difference(change, low, high, SAME)
    return Difference(change, low, high, MORE if low > 0 else LESS if high < 0 else UNSURE)


def _values(runs: Sequence[Run], key: str) -> list[float | None]:
    """The metric of each run; those that the summary has no row for (statistics besides the headline) are None."""
    found: list[float | None] = []
    for run in runs:
        rows = {row["key"]: row["value"] for row in run.summary["metrics"]}
        found.append(rows.get(key))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _hit_tokens(run: Run) -> Ints:
    total: Ints = sum((run.columns[n] for n in run.columns if n.startswith("hit_")), np.zeros(1, dtype=np.int64))
    return total


def _too_short(requests: int, busy_s: float, width_s: float, count: int) -> str:
    """Why there is no interval: too few requests for the windows, or a busy period (in whole windows) that is too long.

    Correlation alone never is why: its length is at most a block's share of the run (`blocks.automatic_length`).
    """
    if count < MIN_BLOCKS:
        least = MIN_BLOCKS * REQUESTS_PER_WINDOW
        return f"no interval: {requests} requests are too few, at least {least} are needed (a longer trace)"
    busy_s = width_s * np.ceil(busy_s / width_s)
    return (
        f"no interval: a queue did not empty for up to {busy_s:.3g} s of {width_s * count:.4g} s, "
        f"and at least {MIN_BLOCKS} such periods are needed (less load, or a longer trace)"
    )


def _drift(length: int, count: int) -> str:
    return (
        "; differences drift over the run, so they hold for runs as long as this one"
        if (length >= count // MIN_BLOCKS and length > 1)
        else ""
    )


def _rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=7))
