"""Runs that go on from a snapshot, judged by what came after it: the same window of time for every variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sim.whatif.runs import Run
from sim.whatif.statistics import resampled


def snapshot_s(groups: Sequence[Sequence[Run]]) -> float | None:
    """When the first of the snapshots was taken that all runs began with, s; None where a run began with none.

    Until then no variant does anything that another does not.
    """
    found = [run.summary.get("from_snapshot") for runs in groups for run in runs]
    if not found or any(one is None for one in found):
        return None
    return min(float(one["at_s"]) for one in found if one is not None)


def requests_after(run: Run, at_s: float) -> Run:
    """The run with the requests alone that were sent after `at_s`, and with the metrics that these give.

    Rates are over the time from `at_s` to the last of their ends, as in `sim.snapshot_summary`. Totals of the run, of
    steps and of links have no such part, so they are not among the metrics.
    """
    later = run.columns["arrival_s"] > at_s
    columns = {name: column[later] for name, column in run.columns.items()}
    finished = ~np.isnan(columns["finish_s"])
    duration = float(columns["finish_s"][finished].max(initial=at_s)) - at_s
    cut = replace(run, columns=columns, summary={**run.summary, "duration_s": duration})
    found = {"requests_per_s": _rate(float(finished.sum()), duration)}
    found["output_tokens_per_s"] = _rate(float(columns["output_tokens"][finished].sum()), duration)
    if later.any():
        every = np.zeros(int(later.sum()), dtype=np.int64)
        found |= {key: float(one[0]) for key, one in resampled(cut, every, np.ones((1, 1), np.int64)).items()}
    metrics = [
        {**metric, "value": None if np.isnan(found[metric["key"]]) else found[metric["key"]]}
        for metric in run.summary["metrics"]
        if metric["key"] in found
    ]
    return replace(cut, summary={**cut.summary, "metrics": metrics})


def _rate(count: float, seconds: float) -> float:
    return count / seconds if seconds > 0 else float("nan")
