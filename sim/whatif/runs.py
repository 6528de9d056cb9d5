"""One run of a what-if study: what is kept of it, made from a scenario or read from a run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hw_profiles.errors import InputError
from sim.config_hash import installed_version
from sim.result import Result
from sim.scenario import Scenario
from sim.tables import numbers
from sim.whatif.pool import run_all, run_apart

KEPT = ("request_id", "session", "replica", "arrival_s", "first_chunk_s", "finish_s", "input_tokens", "output_tokens")
LATENCIES = ("ttft", "tpot", "e2e", "queue")


@dataclass(frozen=True)
class Run:
    """The summary of a run and the columns of its request table that comparisons need (arrays by name)."""

    label: str
    summary: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """A scenario to run. `out`: also write its run directory there. `strict`: refuse a trace that needs a warning."""

    label: str
    document: Mapping[str, Any]
    where: str
    base_dir: Path
    out: Path | None = None
    strict: bool = False

    @classmethod
    def of(cls, label: str, scenario: Scenario, *, out: Path | None = None, strict: bool = False) -> Job:
        """The job of `scenario`; what it holds goes to another process."""
        return cls(label, dict(scenario.document), scenario.where, scenario.base_dir.resolve(), out, strict)

    @property
    def scenario(self) -> Scenario:
        """The scenario again."""
        return Scenario.from_dict(self.document, where=self.where, base_dir=self.base_dir)


def run_job(job: Job) -> Run:
    """Simulate `job`. Raises InputError that says which one it was."""
    with named(job):
        result = job.scenario.run(strict=job.strict)
        if job.out is not None:
            result.save(job.out)
    return kept(job.label, result.summary, result.tables["requests"])


@contextmanager
def named(job: Job) -> Iterator[None]:
    """An InputError from within says which job it was."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if job.label in str(error) else f"{error} (of {job.label})") from None


def run_jobs(jobs: Sequence[Job], *, workers: int, progress: Callable[[int, int], None] | None = None) -> list[Run]:
    """Every job's run, in their order; `progress` is called with (done, in all). Those that begin with one snapshot
    share the way there."""
    from sim.whatif.from_snapshot import Shared, run_shared, snapshot_of

    finished = 0

    def tick(count: int) -> None:
        nonlocal finished
        finished += count
        if progress is not None:
            progress(finished, len(jobs))

    together: dict[Path, list[int]] = {}
    for index, job in enumerate(jobs):
        if (snapshot := snapshot_of(job)) is not None:
            together.setdefault(snapshot, []).append(index)
    answers: dict[int, Run] = {}
    for indices in together.values():
        if len(indices) > 1:
            shared = Shared(tuple(jobs[index] for index in indices), workers)
            answers.update(zip(indices, run_apart(run_shared, shared), strict=True))
            tick(len(indices))
    others = [index for index in range(len(jobs)) if index not in answers]
    runs = run_all(run_job, [jobs[index] for index in others], workers=workers, done=lambda _, __: tick(1))
    answers.update(zip(others, runs, strict=True))
    return [answers[index] for index in range(len(jobs))]


def load_run(folder: Path, label: str) -> Run:
    """The run in a run directory. Raises InputError for what is missing, corrupt or of another version."""
    result = Result.load(folder)
    version, own = result.summary.get("version"), installed_version()
    if version != own:
        text = "another version of kvsim wrote it, so what differs may be the simulator: run it again"
        raise InputError(text, where=folder / "summary.json", path="version", found=version, allowed=own)
    table = result.tables["requests"].combine_chunks()
    missing = [name for name in KEPT if name not in table.column_names]
    if missing:
        raise InputError(f"the table has no column {missing[0]}: another version wrote it", where=folder)
    return kept(label, result.summary, table)


def kept(label: str, summary: Mapping[str, Any], requests: pa.Table) -> Run:
    """What a comparison needs of a run; copies, so that the rest may go."""
    hits = [name for name in requests.column_names if name.startswith("hit_")]
    names = (*KEPT, *(f"{name}_s" for name in LATENCIES), *hits)
    return Run(label, summary, {name: numbers(requests, name).copy() for name in names})
