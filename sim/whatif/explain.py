"""What would move a run: the run again with each resource halved and doubled, one at a time, seed and load alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from hw_profiles.scaling import Machine, scaled
from sim.config_hash import installed_version
from sim.inputs import load_inputs
from sim.metrics import METRICS
from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario
from sim.whatif.compare import compare
from sim.whatif.pool import run_all
from sim.whatif.resources import FACTORS, Resource, Step, resources
from sim.whatif.runs import Run, kept
from sim.whatif.shared import shared_trace

SCHEMA = "kvsim-explain/1"
FILE = "explain.json"
REQUESTS = 2000
"""Requests of each rerun unless more are asked for: the first ones of the trace."""
SHOWN = ("ttft_p99_ms", "tpot_p95_ms", "output_tokens_per_s", "goodput_per_s")
"""Metrics that are compared, by their keys in `sim.metrics`."""


@dataclass(frozen=True)
class Job:
    """One rerun: a scenario, and a change of it (None: as it is)."""

    document: Mapping[str, Any]
    where: str
    base_dir: Path
    step: Step | None


def explain(
    result: Result,
    scenario: Scenario,
    *,
    requests: int = REQUESTS,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """What `explain.json` holds: the metrics of SHOWN as the run is, and with each resource times FACTORS.

    result     of `scenario`; a longer trace is cut to its first `requests` for all reruns, the unchanged one included
    progress   called with (reruns done, in all)
    Each rerun has `intervals` of its differences from the unchanged one (90 %, same requests, as `kvsim compare` has
    them), by metric; None where there is none. A change that the model does not fit, or the scenario does not take, has
    a `problem` in place of `metrics`.
    Raises InputError for `requests` < 1, or when the shortened trace cannot be run.
    """
    if requests < 1:
        raise InputError("", where="--explain-requests", found=requests, allowed="a whole number >= 1")
    arrived = int(result.summary["requests"]["arrived"])
    cut = arrived > requests
    base = scenario.set("trace.limit", requests) if cut else scenario
    numbers = {row["path"]: row["value_si"] for row in result.profile_values}
    found = resources(scenario, result.summary, numbers)
    steps = [step for resource in found for step in resource.steps]
    job = partial(Job, dict(base.document), base.where, base.base_dir.resolve())
    jobs = [job(step) for step in ([None, *steps] if cut else steps)]
    finished = 0

    def tick(_: int, __: Any) -> None:
        nonlocal finished
        finished += 1
        if progress is not None:
            progress(finished, len(jobs))

    answers = run_all(rerun, jobs, workers=workers, done=tick)
    own = answers.pop(0) if cut else _answer(result)
    if "problem" in own:
        raise InputError(f"the first {requests} requests cannot be run: {own['problem']}", where=scenario.where)
    by_step = iter([_judged(own["run"], answer) for answer in answers])
    return {
        "schema": SCHEMA,
        "version": installed_version(),
        "config_sha256": result.summary["config_sha256"],
        "requests": min(requests, arrived),
        "of": arrived,
        "factors": list(FACTORS),
        "metrics": [_described(key, own["metrics"]) for key in SHOWN],
        "resources": [_document(resource, by_step) for resource in found],
    }


def save_explain(study: Mapping[str, Any], run_dir: Path) -> Path:
    """Write `run_dir/explain.json`, complete or not at all; where it is."""
    target = run_dir / FILE
    write_atomic(target, json.dumps(study, indent=1, allow_nan=False) + "\n")
    return target


def rerun(job: Job) -> dict[str, Any]:
    """`metrics` of one rerun by key (None where a run has no such number) and the `run` itself, or the `problem` why it
    could not be."""
    try:
        scenario = Scenario.from_dict(job.document, where=job.where, base_dir=job.base_dir)
        step = job.step
        if step is not None:
            scenario = scenario.set_all(step.settings)
        change = partial(changed, step=step) if step is not None else None
        inputs = load_inputs(scenario, read=shared_trace, change=change)
        return _answer(simulate(scenario, inputs=inputs))
    except InputError as error:
        return {"problem": str(error)}


def _answer(result: Result) -> dict[str, Any]:
    return {"metrics": shown_metrics(result.summary), "run": kept("", result.summary, result.tables["requests"])}


def _judged(own: Run, answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer with the intervals of its differences from the unchanged run, in place of its run."""
    if "run" not in answer:
        return dict(answer)
    found = {row.metric["key"]: row.differences[0] for row in compare([[own], [answer["run"]]], whole=True).rows}
    pairs = {key: None if (d := found.get(key)) is None or d.low is None else [d.low, d.high] for key in SHOWN}
    return {"metrics": answer["metrics"], "intervals": pairs}


def changed(machine: Machine, step: Step) -> Machine:
    """The machine after a step."""
    if step.scale:
        machine = scaled(machine, step.scale, step.factor)
    if step.hbm_bytes is not None:
        machine = machine._replace(profile=machine.profile.override("capacity.hbm_bytes", round(step.hbm_bytes)))
    return machine


def shown_metrics(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of SHOWN of a summary."""
    found = {metric["key"]: metric["value"] for metric in summary["metrics"]}
    return {key: found.get(key) for key in SHOWN}


def _described(key: str, base: Mapping[str, float | None]) -> dict[str, Any]:
    metric = next(metric for metric in METRICS if metric.key == key)
    return {"key": key, "label": metric.label, "unit": metric.unit, "better": metric.better, "value": base[key]}


def _document(resource: Resource, answers: Any) -> dict[str, Any]:
    runs = [{"factor": step.factor, "value": step.label, **next(answers)} for step in resource.steps]
    return {"key": resource.key, "label": resource.label, "value": resource.value, "what": resource.what, "runs": runs}
