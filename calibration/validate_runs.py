"""`kvsim validate runs`: simulated against measured runs of real servers, request by request.

The one constant that no table has is the engine's host time per step. Unless the run's head gives it, it is taken from
the requests queued in the first `LEARN_S` seconds (the value at which their mean TPOT is met), and the run is judged on
all others. Everything else is the profile's and the engine's arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calibration.fitting import Array, Mask
from calibration.measured_run import MeasuredRun
from hw_profiles.errors import InputError
from sim.inputs import load_inputs
from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario
from traces.request import Trace
from traces.spec import TraceSpec

LEARN_S = 10.0
HOST_TIME_STEP_S = 1e-5
"""How closely the host time is found."""
HOST_TIMES_S = (0.0, 0.0005, 0.001, 0.0015, 0.002)
"""Host times per step of the sensitivity table."""
STATISTICS = ("mean", "p50", "p90", "p99")
TARGETS = {
    **{("ttft", name): limit for name, limit in (("mean", 0.05), ("p99", 0.06))},
    **{("tpot", name): limit for name, limit in (("mean", 0.02), ("p99", 0.06))},
    **{("e2e", name): limit for name, limit in (("mean", 0.025), ("p99", 0.06))},
}
"""Largest error allowed, by metric and statistic. The best published for the ShareGPT run, on the means of all
requests: -4.0, -1.0 and -1.8 % (LLMServingSim 2.0)."""


@dataclass(frozen=True)
class Row:
    """One metric: seconds (or requests/s, or requests), the relative error, the target if there is one."""

    suite: str
    metric: str
    measured: float
    simulated: float
    error: float
    target: float | None

    @property
    def missed(self) -> bool:
        """True when the target is missed."""
        return self.target is not None and abs(self.error) > self.target

    def as_dict(self) -> dict[str, object]:
        """The row as it is printed as JSON."""
        return {name: getattr(self, name) for name in ("suite", "metric", "measured", "simulated", "error", "target")}


class Learnt(NamedTuple):
    """A host time per step, s; `doubt`: why it may not be what the engine's host takes, or nothing."""

    seconds: float
    doubt: str = ""


def scenario_of(run: MeasuredRun, host_time_s: float | None = None, *, prefix_caching: bool | None = None) -> Scenario:
    """The run as a scenario, with what its head says of what is not given. Raises InputError naming the head."""
    given: dict[str, object] = {} if host_time_s is None else {"host_time": f"{host_time_s!r} s"}
    if prefix_caching is not None or not run.prefix_caching:
        given["prefix_caching"] = bool(prefix_caching)
    document = {
        "schema": "kvsim-scenario/1",
        "trace": {"path": run.source},
        "model": run.model,
        "tiers": [{"name": "hbm"}],
        **run.sections,
        "hardware": {"profile": run.profile, **run.sections.get("hardware", {})},
        "engine": {**run.engine, **given},
    }
    return Scenario.from_dict(document, where=run.where)


def given_host_time(run: MeasuredRun) -> float | None:
    """Host time per step, s, that the run's head gives; None: it gives none."""
    return scenario_of(run).spec.engine.host_time if "host_time" in run.engine else None


def simulate_run(run: MeasuredRun, host_time_s: float | None = None, *, prefix_caching: bool | None = None) -> Result:
    """The run as kvsim sees it. Raises InputError if the simulator rejects every request."""
    trace = _trace(run)

    def read(spec: TraceSpec, seed: int, base_dir: str | Path = ".", *, strict: bool = False) -> Trace:
        return trace

    scenario = scenario_of(run, host_time_s, prefix_caching=prefix_caching)
    result = simulate(scenario, inputs=load_inputs(scenario, read=read))
    reasons = rejected(result)
    if reasons.total() == len(run):
        raise InputError(f"the simulator rejects every request ({said(reasons)}): nothing to judge", where=run.source)
    return result


def rejected(result: Result) -> Counter[str]:
    """How many requests the simulator rejected, by reason."""
    table = result.tables["requests"]
    pairs = zip(table["status"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return Counter(reason for status, reason in pairs if status == "rejected")


def said(reasons: Counter[str]) -> str:
    """Reasons and their counts in words."""
    return ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))


def learn_host_time(run: MeasuredRun, most_s: float = 0.004) -> Learnt:
    """Host time per step at which the mean TPOT of the requests queued in the first `LEARN_S` seconds is met.

    By bisection from 0 to `most_s`, to HOST_TIME_STEP_S: TPOT grows with it. At either end the other differences are
    larger than any host time makes up for, which `doubt` says.
    """
    measured = run.latencies["tpot"]
    early = (run.queued_s < LEARN_S) & np.isfinite(measured)

    def error(host_time_s: float) -> float:
        simulated = latencies(simulate_run(run, host_time_s))["tpot"]
        both = early & np.isfinite(simulated)
        return float(np.mean(simulated[both]) - np.mean(measured[both])) if both.any() else np.nan

    low, high = 0.0, most_s
    least = error(low)
    if np.isnan(least):
        return Learnt(0.0, f"no request of the first {LEARN_S:.0f} s decodes, so 0 is assumed")
    if least >= 0:
        return Learnt(0.0, END if least > HOST_TIME_STEP_S else "")
    while high - low > HOST_TIME_STEP_S:
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) < 0 else (low, middle)
    if high == most_s and error(most_s) < 0:
        return Learnt(most_s, END)
    return Learnt(round((low + high) / 2, 6))


END = "at the end of the range searched: something else differs between the run and its simulation"
"""What is wrong with a host time that TPOT is not met at."""


def latencies(result: Result) -> dict[str, Array]:
    """TTFT, TPOT and E2E by request, in order of arrival, s."""
    table = result.tables["requests"]
    order = np.argsort(table["request_id"].to_numpy())
    return {name: table[f"{name}_s"].to_numpy()[order] for name in ("ttft", "tpot", "e2e")}


def compare(run: MeasuredRun, result: Result, judged: Mask, targets: bool = True) -> list[Row]:
    """Latencies of the judged requests, throughput, and the curves of running and waiting requests.

    Latencies are of requests that the simulator did not reject, TPOT of those with more than one token of output. What
    was measured as 0, or of no request, has no row.
    """
    rows = []
    simulated = latencies(result)
    served = np.isfinite(simulated["e2e"])
    for metric, measured in run.latencies.items():
        both = judged & served & np.isfinite(measured)
        for name in STATISTICS if both.any() else ():
            target = TARGETS.get((metric, name)) if targets else None
            a, b = (statistic(values[both], name) for values in (measured, simulated[metric]))
            rows.append(_row(run.name, f"{metric}_{name}", a, b, target))
    span = float(run.last_token_s.max())
    tokens, simulated_tokens = float(run.output_tokens.sum()), float(run.output_tokens[served].sum())
    rate = simulated_tokens / float(result.summary["duration_s"])
    rows.append(_row(run.name, "output_tokens_per_s", tokens / span if span else 0.0, rate, None))
    return [row for row in rows + _curves(run, result) if row.measured]


def statistic(values: Array, name: str) -> float:
    """ "mean", or a percentile such as "p99", without NaNs."""
    return float(np.nanmean(values) if name == "mean" else np.nanpercentile(values, float(name[1:])))


def _curves(run: MeasuredRun, result: Result) -> list[Row]:
    """Requests running and waiting, on average over the ticks."""
    times, *measured = run.ticks
    if not len(times):
        return []
    table = result.tables["requests"]
    columns = {name: table[name].to_numpy() for name in ("arrival_s", "first_chunk_s", "finish_s")}
    running = [_between(columns["first_chunk_s"], columns["finish_s"], t) for t in times]
    waiting = [_between(columns["arrival_s"], columns["first_chunk_s"], t) for t in times]
    return [
        _row(run.name, f"{name}_mean", float(np.mean(a)), float(np.mean(b)), None)
        for name, a, b in zip(("running", "waiting"), measured, (running, waiting), strict=True)
    ]


def _between(start: Array, end: Array, time: float) -> int:
    return int(((start <= time) & (time < end)).sum())


def _row(suite: str, metric: str, measured: float, simulated: float, target: float | None) -> Row:
    error = simulated / measured - 1.0 if measured else np.nan
    return Row(suite, metric, measured, simulated, error, target)


def _trace(run: MeasuredRun) -> Trace:
    """The requests as a trace; a block whose id is missing is one of its own."""
    fresh = count(1 + max((max(ids, default=0) for ids in run.hash_ids), default=0))

    def ids_of(i: int) -> Iterator[int]:
        yield from run.hash_ids[i]
        yield from (next(fresh) for _ in range(len(run.hash_ids[i]), int(blocks[i])))

    blocks = -(-run.input_tokens.astype(np.int64) // run.block_tokens)
    return Trace(
        name=run.name,
        block_tokens=run.block_tokens,
        arrival_s=run.queued_s,
        input_tokens=run.input_tokens.astype(np.int64),
        output_tokens=run.output_tokens.astype(np.int64),
        hash_ids=np.array([key for i in range(len(run)) for key in ids_of(i)], np.int64),
        hash_offsets=np.concatenate(([0], np.cumsum(blocks))).astype(np.int64),
        content_sha256="",
        source=run.source,
    ).validate()


def step_sensitivity(run: MeasuredRun, found: list[tuple[float, bool, dict[str, float]]]) -> dict[str, float]:
    """By how many percent the means move if every step takes 1 % longer, by metric, from `sensitivity`'s host times.

    A step is taken to last as long as the measured mean TPOT.
    """
    (low, _, first), (high, _, second) = [row for row in found if row[1]][:2]
    longer = (high - low) / float(np.nanmean(run.latencies["tpot"]))
    return {metric: (second[metric] - first[metric]) / (1 + first[metric]) / longer for metric in first}


def sensitivity(run: MeasuredRun, judged: Mask) -> list[tuple[float, bool, dict[str, float]]]:
    """(host time s, prefix caching, error of the means by metric) over HOST_TIMES_S, with and without caching."""
    found = []
    for caching in (True, False):
        for host_time_s in HOST_TIMES_S:
            rows = compare(run, simulate_run(run, host_time_s, prefix_caching=caching), judged)
            errors = {metric: row.error for metric in run.latencies for row in rows if row.metric == f"{metric}_mean"}
            found.append((host_time_s, caching, errors))
    return found
