"""A sweep: every combination of lists of values, one run each, one row each, and nothing that was done is done twice.

A finished run is a file of its own, named by the hash of its configuration and renamed into place, so that a sweep may
be killed at any moment and loses the runs in flight alone. The hash covers the version and the content of all that the
scenario names (`sim.config_hash`): after an edit of a policy or a trace the old file is not that run's any more.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from sim.config_hash import config_sha256
from sim.run import simulate
from sim.whatif.pool import run_all
from sim.whatif.runs import Job
from sim.whatif.shared import shared_inputs
from sim.whatif.sweep_document import priced
from sim.whatif.sweep_file import Sweep
from sim.whatif.variants import Variant, value_label

ROW = "kvsim-sweep-row/3"

Row = dict[str, Any]
"""schema, config_sha256 (None if it could not be made), error (None if it ran), metrics by key, targets of the SLO,
hardware (what a cost needs: `sim.whatif.sweep_document.priced`; None if it did not run)."""


class Executor(Protocol):
    """`sim.whatif.pool.run_all`, or what does the same elsewhere."""

    def __call__(
        self,
        work: Callable[[Job], Row],
        jobs: Sequence[Job],
        *,
        lost: Callable[[Job, str], Row],
        done: Callable[[int, Row], None],
    ) -> list[Row]: ...


def run_sweep(
    sweep: Sweep | Sequence[Variant],
    out: Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    resume: bool = False,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Run what has no row yet; writes `out`/sweep.parquet, one row per variant in their order, and returns the rows.

    On `workers` processes of this machine, or as `executor` does it. Every row is written when it comes; a run that
    fails is a row with its error. `resume`: rows that are there already are taken. Raises InputError where results
    cannot be written.
    """
    return chosen_and_run(
        sweep, out, workers=workers, executor=executor, resume=resume, strict=strict, progress=progress
    )[1]


def chosen_and_run(
    sweep: Sweep | Sequence[Variant],
    out: Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    resume: bool = False,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Variant], list[Row]]:
    """The same, with the variants: those that a search chose, if the sweep is one."""
    folder = out / "rows"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", where=folder) from None
    execute = partial(run_all, workers=workers) if executor is None else executor
    total = sweep.runs if isinstance(sweep, Sweep) and sweep.search else None
    before = 0

    def run(variants: Sequence[Variant]) -> list[Row]:
        nonlocal before
        jobs = [Job.of(v.label, v.scenario, strict=strict) for v in variants]
        offset, whole = before, total or len(jobs)
        told = None if progress is None else lambda done, _: progress(offset + done, whole)
        before += len(jobs)
        return _run_rows(jobs, folder, execute, resume=resume or total is not None, progress=told)

    if isinstance(sweep, Sweep) and sweep.search:
        from sim.whatif.search import run_search

        variants, rows = run_search(sweep, run)
    else:
        variants = list(sweep.variants if isinstance(sweep, Sweep) else sweep)
        rows = run(variants)
    buffer = io.BytesIO()
    pq.write_table(table(variants, rows), buffer, compression="zstd")
    write_atomic(out / "sweep.parquet", buffer.getvalue())
    return variants, rows


def _run_rows(
    jobs: Sequence[Job],
    folder: Path,
    execute: Executor,
    *,
    resume: bool,
    progress: Callable[[int, int], None] | None,
) -> list[Row]:
    """The row of each job, from `folder` or by running it; written there when it comes."""
    found: dict[int, Row] = {}
    if resume:
        kept = ((index, _kept(job, folder)) for index, job in enumerate(jobs))
        found = {index: row for index, row in kept if row is not None}
    left = [index for index in range(len(jobs)) if index not in found]

    def done(place: int, row: Row) -> None:
        if row["error"] is None:
            write_atomic(folder / f"{row['config_sha256']}.json", json.dumps(row) + "\n")
        found[left[place]] = row
        if progress is not None:
            progress(len(found), len(jobs))

    execute(run_row, [jobs[index] for index in left], lost=_lost, done=done)
    return [found[index] for index in range(len(jobs))]


def run_row(job: Job) -> Row:
    """Run one job; whatever ends it is the row's error."""
    sha: str | None = None
    try:
        scenario = job.scenario
        inputs = shared_inputs(scenario, strict=job.strict)
        sha = config_sha256(scenario, inputs)
        summary = simulate(scenario, inputs=inputs, strict=job.strict).summary
    except Exception as error:  # noqa: BLE001 -- the sweep goes on
        return _failed(sha, str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
    metrics = {metric["key"]: metric["value"] for metric in summary["metrics"]}
    return {
        "schema": ROW,
        "config_sha256": sha,
        "error": None,
        "metrics": metrics,
        "slo": summary["slo"]["targets"],
        "hardware": priced(summary, scenario.spec.hardware.gpus_per_node),
    }


def _kept(job: Job, rows: Path) -> Row | None:
    """The row that an earlier sweep left for this job."""
    try:
        sha = config_sha256(job.scenario, shared_inputs(job.scenario, strict=job.strict))
    except InputError:
        return None  # it will fail again, and say why
    return _read(rows / f"{sha}.json")


def table(variants: Sequence[Variant], rows: Sequence[Row]) -> pa.Table:
    """One row per run: each path that varies, config_sha256, error, if it met its SLO, each metric that any run has."""
    paths = list(variants[0].settings) if variants else []
    columns: dict[str, list[Any]] = {path: _column([v.settings[path] for v in variants]) for path in paths}
    columns["config_sha256"] = [row["config_sha256"] for row in rows]
    columns["error"] = [row["error"] for row in rows]
    text = ("config_sha256", "error")
    data = {name: pa.array(values, pa.string() if name in text else None) for name, values in columns.items()}
    if any(row["slo"] for row in rows):
        data["slo_met"] = pa.array([_met(row) for row in rows], pa.bool_())
    for key in dict.fromkeys(key for row in rows for key in row["metrics"]):
        data[key] = pa.array([_number(row["metrics"].get(key)) for row in rows], pa.float64())
    return pa.table(data)


def count_kept(out: Path) -> int:
    """Rows that a sweep has left in `out`."""
    return len(list((out / "rows").glob("*.json")))


def _read(file: Path) -> Row | None:
    """The row in a file; None if there is none, or it is not whole."""
    try:
        row = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(row, dict) and row.get("schema") == ROW and row.get("config_sha256") == file.stem
    return row if whole and all(isinstance(row.get(key), dict) for key in ("metrics", "slo", "hardware")) else None


def _lost(job: Job, why: str) -> Row:
    return _failed(None, why)


def _failed(sha: str | None, error: str) -> Row:
    said = " ".join(error.split())
    return {"schema": ROW, "config_sha256": sha, "error": said, "metrics": {}, "slo": {}, "hardware": None}


def _met(row: Row) -> bool | None:
    return all(target["met"] for target in row["slo"].values()) if row["slo"] else None


def _column(values: Sequence[Any]) -> list[Any]:
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return list(values) if plain else [value_label(value) for value in values]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
