"""A sweep: every combination of lists of values, one run each, one row each, and nothing that was done is done twice.

A finished run is a file of its own, named by the hash of its configuration and renamed into place, so that a sweep may
be killed at any moment and loses the runs in flight alone. The hash covers the version and the content of all that the
scenario names (`sim.run.config_sha256`): after an edit of a policy or a trace the old file is not that run's any more.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from hw_profiles.yaml_io import load_yaml
from sim.run import config_sha256, simulate
from sim.scenario import Scenario
from sim.whatif.pool import run_all
from sim.whatif.runs import Job
from sim.whatif.shared import shared_inputs
from sim.whatif.variants import Variant, expand, value_label

SCHEMA = "kvsim-sweep/1"
ROW = "kvsim-sweep-row/1"
KEYS = ("schema", "scenario", "set", "vary")
LATER = ("sample", "search", "executor")

Row = dict[str, Any]
"""schema, config_sha256 (None if it could not be made), error (None if it ran), metrics by key."""


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


def load_sweep(path: Path) -> list[Variant]:
    """The runs of a sweep file, in order. Raises InputError, one line, before anything runs."""
    document = load_yaml(path)
    for key in document:
        if key in LATER:
            raise InputError("is not available in this version", where=path, path=key, allowed=KEYS)
        if key not in KEYS:
            raise InputError("unknown key", where=path, found=key, allowed=KEYS, near=KEYS)
    if document.get("schema") != SCHEMA:
        raise InputError("", where=path, path="schema", found=document.get("schema"), allowed=SCHEMA)
    name = document.get("scenario")
    if not isinstance(name, str):
        raise InputError("", where=path, path="scenario", found=name, allowed="the path of a scenario file")
    scenario = Scenario.load(path.parent / name)
    for setting, value in _mapping(document, "set", path).items():
        scenario = scenario.set(setting, value)
    vary = _mapping(document, "vary", path)
    if not vary:
        raise InputError("", where=path, path="vary", found=document.get("vary"), allowed="{a.b: [x, y]}")
    for key, values in vary.items():
        if not isinstance(values, list) or not values:
            raise InputError("", where=path, path=f"vary.{key}", found=values, allowed="a list of one value or more")
    return expand(scenario, list(vary.items()), where=str(path))


def run_sweep(
    variants: Sequence[Variant],
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
    rows = out / "rows"
    jobs = [Job.of(v.label, v.scenario, strict=strict) for v in variants]
    found: dict[int, Row] = {}
    if resume:
        kept = ((index, _kept(job, rows)) for index, job in enumerate(jobs))
        found = {index: row for index, row in kept if row is not None}
    left = [index for index in range(len(jobs)) if index not in found]

    def done(place: int, row: Row) -> None:
        if row["error"] is None:
            write_atomic(rows / f"{row['config_sha256']}.json", json.dumps(row) + "\n")
        found[left[place]] = row
        if progress is not None:
            progress(len(found), len(jobs))

    try:
        rows.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror or error}", where=rows) from None
    executor = partial(run_all, workers=workers) if executor is None else executor
    executor(run_row, [jobs[index] for index in left], lost=_lost, done=done)
    ordered = [found[index] for index in range(len(jobs))]
    buffer = io.BytesIO()
    pq.write_table(table(variants, ordered), buffer, compression="zstd")
    write_atomic(out / "sweep.parquet", buffer.getvalue())
    return ordered


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
    return {"schema": ROW, "config_sha256": sha, "error": None, "metrics": metrics}


def _kept(job: Job, rows: Path) -> Row | None:
    """The row that an earlier sweep left for this job."""
    try:
        sha = config_sha256(job.scenario, shared_inputs(job.scenario, strict=job.strict))
    except InputError:
        return None  # it will fail again, and say why
    return _read(rows / f"{sha}.json")


def table(variants: Sequence[Variant], rows: Sequence[Row]) -> pa.Table:
    """One row per run: each path that varies, config_sha256, error, and a column for each metric that any run has."""
    paths = list(variants[0].settings) if variants else []
    columns: dict[str, list[Any]] = {path: _column([v.settings[path] for v in variants]) for path in paths}
    columns["config_sha256"] = [row["config_sha256"] for row in rows]
    columns["error"] = [row["error"] for row in rows]
    text = ("config_sha256", "error")
    data = {name: pa.array(values, pa.string() if name in text else None) for name, values in columns.items()}
    for key in dict.fromkeys(key for row in rows for key in row["metrics"]):
        data[key] = pa.array([_number(row["metrics"].get(key)) for row in rows], pa.float64())
    return pa.table(data)


def count_kept(out: Path) -> int:
    """Rows that a sweep has left in `out`."""
    return len(list((out / "rows").glob("*.json")))


def _mapping(document: Mapping[str, Any], key: str, where: Path) -> dict[str, Any]:
    found = document.get(key) or {}
    if not isinstance(found, dict):
        raise InputError("", where=where, path=key, found=found, allowed="a mapping of dotted paths to values")
    return found


def _read(file: Path) -> Row | None:
    """The row in a file; None if there is none, or it is not whole."""
    try:
        row = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(row, dict) and row.get("schema") == ROW and row.get("config_sha256") == file.stem
    return row if whole and isinstance(row.get("metrics"), dict) else None


def _lost(job: Job, why: str) -> Row:
    return _failed(None, why)


def _failed(sha: str | None, error: str) -> Row:
    return {"schema": ROW, "config_sha256": sha, "error": " ".join(error.split()), "metrics": {}}


def _column(values: Sequence[Any]) -> list[Any]:
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return list(values) if plain else [value_label(value) for value in values]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
