"""How sure a result is, given how sure its hardware numbers are: the run again on machines drawn from the intervals.

Run i takes every value of the profile and of the devices from the i-th draw of its own random stream (named by the
value), and everything else as it is: trace, seed, policies, and values that the scenario sets itself. The streams
depend on the scenario's seed and the value's name alone, so that variants of a scenario see the same draws (common
random numbers) and differences between them are not blurred by the machine. Draws come in
pairs, u and 1 - u (antithetic variates: Hammersley and Morton 1956): where one machine has a value above its median the
next has it as far below, so that few machines are centred on the profile too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.sampling import Draw
from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario
from traces.random import stream

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue", "load", "prefill")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
ENDS = (0.05, 0.5, 0.95)
FEWEST, MOST = 3, 1000
NEAR = 1e-9
"""Relative difference within which a value is on the end of its band: quantiles are interpolated."""


def machine(seed: int, number: int) -> Draw:
    """The uniform numbers of the `number`-th machine, by name of the value; those of 2 i and 2 i + 1 add up to 1."""

    def draw(name: str) -> float:
        u = float(stream(seed, f"uncertainty.{name}", number // 2).uniform(1e-9, 1 - 1e-9))
        return 1 - u if number % 2 else u

    return draw


def check_runs(runs: int) -> None:
    """Raises InputError for a number of runs that no band comes from, or that is too large."""
    if not FEWEST <= runs <= MOST:
        raise InputError("", where="--uncertainty", found=runs, allowed=f"{FEWEST} to {MOST} runs")


def with_uncertainty(
    result: Result, scenario: Scenario, runs: int, progress: Callable[[int], None] | None = None
) -> Result:
    """`result` (of the scenario) with 5..95 % bands over `runs` further runs in its summary.

    Every entry of `metrics` gets `band: [p5, p95]`, and `uncertainty` has the bands of all latencies and, as
    `outside`, the labels of metrics whose own value is outside their band. A drawn machine that the model does not fit
    counts in `uncertainty.failed`. `progress` is told how many runs are done.
    Raises InputError for a number of runs that is too small or too large, or when none of them could run.
    """
    check_runs(runs)
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
    outside = [str(metric["label"]) for metric in summary["metrics"] if _outside(metric)]
    return replace(result, summary={**summary, "uncertainty": {**about, "outside": outside, **latencies}})


def _outside(metric: dict[str, Any]) -> bool:
    value, band = metric["value"], metric["band"]
    if value is None or band is None:
        return False
    slack = NEAR * abs(value)
    return not band[0] - slack <= value <= band[1] + slack


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
