"""Inputs of many runs in one process: a trace is read once, as long as nothing about it changes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sim.inputs import Inputs, load_inputs
from sim.scenario import Scenario
from traces.catalog import locate
from traces.request import Trace
from traces.spec import TraceSpec, build

KEPT = 4
"""Traces that a process keeps: runs of a sweep that differ in their trace as well come one after another."""


def shared_inputs(scenario: Scenario, *, strict: bool = False) -> Inputs:
    """`load_inputs`, with the trace of an earlier call if it is the same. Raises InputError."""
    return load_inputs(scenario, strict=strict, read=shared_trace)


def shared_trace(spec: TraceSpec, seed: int, base_dir: str | Path = ".", *, strict: bool = False) -> Trace:
    """`traces.spec.build`, from memory if the file has not changed since. Raises InputError."""
    return _built(spec.resolved(base_dir).model_dump_json(exclude_none=True), seed, strict, _stamp(spec, base_dir))


@lru_cache(maxsize=KEPT)
def _built(spec: str, seed: int, strict: bool, stamp: tuple[str, int, int] | None) -> Trace:
    """The trace of a resolved spec; `stamp` is only there to tell versions of its file apart."""
    return build(TraceSpec.model_validate_json(spec), seed, strict=strict)


def _stamp(spec: TraceSpec, base_dir: str | Path) -> tuple[str, int, int] | None:
    """Path, size and time (ns) of the trace's file; None where there is none."""
    path = locate(spec.name) if spec.name is not None else None
    if spec.path is not None:
        path = Path(str(spec.resolved(base_dir).path))
    if path is None or not path.exists():
        return None
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns
