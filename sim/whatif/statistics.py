"""The metrics of a run that its requests give, for any number of copies of each request: what a bootstrap evaluates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.whatif.blocks import Floats, Ints
from sim.whatif.runs import LATENCIES, Run


def resampled(run: Run, window: Ints, counts: Ints) -> dict[str, Floats]:
    """Every metric that can be resampled, by its key in `sim.metrics`: float64[m] for counts int64[m, windows].

    Row k of `counts` says how often each window is taken. NaN where a resample has nothing to measure.
    """
    found: dict[str, Floats] = {}
    for name in LATENCIES:
        found |= _latency(name, run.columns[f"{name}_s"], window, counts)
    found |= _hits(run, window, counts)
    found["goodput_per_s"] = _goodput(run, window, counts)
    return found


def meets_slo(run: Run) -> np.ndarray:
    """bool[n]: finished, and within every bound of the SLO that is on single requests (as `sim.summary` counts it)."""
    meets: np.ndarray = ~np.isnan(run.columns["finish_s"])
    for key, target in run.summary["slo"]["targets"].items():
        metric = key.rpartition("_")[0]
        if metric != "itl":
            meets = meets & ~(run.columns[f"{metric}_s"] > target["target_ms"] / 1e3)
    return meets


def _latency(name: str, column: Floats, window: Ints, counts: Ints) -> dict[str, Floats]:
    """Mean and percentiles in ms. Percentiles interpolate as numpy's do, on the copies."""
    known = ~np.isnan(column)
    order = np.argsort(column[known], kind="stable")
    values, where = column[known][order] * 1e3, window[known][order]
    keys = ("mean", "p50", "p90", "p95", "p99")
    found = {key: np.full(len(counts), np.nan) for key in keys}
    for row, count in enumerate(counts):
        copies = count[where]
        upto = np.cumsum(copies)
        total = int(upto[-1]) if len(upto) else 0
        if not total:
            continue
        found["mean"][row] = float(copies @ values) / total
        for key in keys[1:]:
            place = float(key[1:]) / 100 * (total - 1)
            low = int(place)
            first, second = np.searchsorted(upto, [low, min(low + 1, total - 1)], side="right")
            found[key][row] = values[first] + (place - low) * (values[second] - values[first])
    return {f"{name}_{key}_ms": series for key, series in found.items()}


def _hits(run: Run, window: Ints, counts: Ints) -> dict[str, Floats]:
    """Prefix hit ratios in per cent, all tiers and each."""
    windows = counts.shape[1]
    columns: Mapping[str, np.ndarray] = run.columns
    finished = ~np.isnan(columns["finish_s"])
    asked = np.bincount(window, np.where(finished, columns["input_tokens"], 0), windows)
    total = counts @ asked
    found: dict[str, Floats] = {}
    every = np.zeros(len(counts))
    for name in (name for name in columns if name.startswith("hit_")):
        hits = counts @ np.bincount(window, columns[name], windows)
        every = every + hits
        found[name.removesuffix("_tokens")] = _percent(hits, total)
    return {**found, "hit_ratio": _percent(every, total)}


def _goodput(run: Run, window: Ints, counts: Ints) -> Floats:
    """Share of the requests that meet the SLO, by the requests per second of the run."""
    windows = counts.shape[1]
    good = counts @ np.bincount(window, meets_slo(run), windows)
    requests = counts @ np.bincount(window, minlength=windows)
    duration = float(run.summary["duration_s"])
    scale = len(window) / duration if duration else 0.0
    return np.where(requests > 0, good / np.maximum(1, requests) * scale, np.nan)


def _percent(part: np.ndarray, whole: np.ndarray) -> Floats:
    return np.where(whole > 0, 100 * part / np.maximum(1, whole), np.nan)
