"""How sure a result is, given how sure its hardware numbers are: the run again on machines drawn from the intervals.

Run i takes every value of the profile and of the devices from the i-th draw of its own random stream (named by the
value), and everything else as it is: trace, seed, policies, and values that the scenario sets itself. The streams
depend on the scenario's seed and the value's name alone, so that variants of a scenario see the same draws (common
random numbers) and differences between them are not blurred by the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.sampling import Draw
from sim.run import Result, simulate
from sim.scenario import Scenario
from traces.random import stream

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue", "load", "prefill")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
ENDS = (0.05, 0.5, 0.95)
FEWEST, MOST = 2, 1000


def machine(seed: int, number: int) -> Draw:
    """The uniform numbers of the `number`-th machine, by name of the value."""
    return lambda name: float(stream(seed, f"uncertainty.{name}", number).uniform(1e-9, 1 - 1e-9))


def with_uncertainty(
    result: Result, scenario: Scenario, runs: int, progress: Callable[[int], None] | None = None
) -> Result:
    """`result` (of the scenario) with 5..95 % bands over `runs` further runs in its summary.

    Every entry of `metrics` gets `band: [p5, p95]`, and `uncertainty` has the bands of all latencies. A drawn machine
    that the model does not fit counts in `uncertainty.failed`. `progress` is told how many runs are done.
    Raises InputError for a number of runs that is too small or too large, or when none of them could run.
    """
    if not FEWEST <= runs <= MOST:
        raise InputError("", where="--uncertainty", found=runs, allowed=f"{FEWEST} to {MOST} runs")
    summaries: list[dict[str, Any]] = []
    problem: InputError | None = None
    for number in range(runs):
        try:
            summaries.append(simulate(scenario, draw=machine(scenario.spec.seed, number)).summary)
        except InputError as error:
            problem = error
        if progress is not None:
            progress(number + 1)
    if not summaries:
        raise problem or InputError("no run on a drawn machine succeeded", where=scenario.where)
    summary = dict(result.summary)
    summary["metrics"] = [{**metric, "band": _metric(metric["key"], summaries)} for metric in summary["metrics"]]
    latencies = {f"{name}_ms": _latency(f"{name}_ms", summaries) for name in LATENCIES}
    about = {"runs": len(summaries), "failed": runs - len(summaries), "interval": [ENDS[0], ENDS[-1]]}
    return replace(result, summary={**summary, "uncertainty": {**about, **latencies}})


def _metric(key: str, summaries: list[dict[str, Any]]) -> list[float] | None:
    found = [metric["value"] for each in summaries for metric in each["metrics"] if metric["key"] == key]
    band = _band(found)
    return None if band is None else [band["p5"], band["p95"]]


def _latency(name: str, summaries: list[dict[str, Any]]) -> dict[str, dict[str, float] | None]:
    return {statistic: _band([each[name][statistic] for each in summaries]) for statistic in STATISTICS}


def _band(values: list[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, middle, high = np.quantile(known, ENDS)
    return {"p5": float(low), "p50": float(middle), "p95": float(high)}
