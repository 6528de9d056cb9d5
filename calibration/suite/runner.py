"""Run a plan: kernels are checked, then every point is measured in shuffled passes, anchors between.

Everything is written out as it comes. Whatever fails is written down and the rest goes on, unless the GPU itself has
failed; what is already in the file is not measured again.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibration.suite import bench_host, preflight
from calibration.suite.benches import BENCHES, checked_by
from calibration.suite.facts import Facts
from calibration.suite.lab import Lab
from calibration.suite.plan import Plan
from calibration.suite.point import Point
from calibration.suite.samples import SCHEMA, Samples, Writer
from calibration.suite.timing import Measured, Trial, measure
from hw_profiles.errors import InputError

Progress = Callable[[int, int, str], None]
"""(points done, points in all, what is measured now)."""
ANCHOR_SAMPLES, ANCHOR_WARMUPS = 8, 20
"""Enough to bring an idle card to its clocks."""
DECIMALS = 3
"""Digits behind the point of a microsecond."""


def run_plan(
    facts: Facts,
    plan: Plan,
    path: Path,
    *,
    before: Samples | None = None,
    budget_s: float | None = None,
    disk: Path | None = None,
    progress: Progress = lambda done, count, what: None,
) -> None:
    """Measure `plan` on the machine of `facts` into the file `path`.

    before: what the file holds already. budget_s: seconds after which only points of priority 0 are still measured.
    Raises InputError when the GPU fails so that nothing more can be measured; what was measured is in the file.
    """
    started = time.monotonic()
    lab = Lab(facts, disk=disk)
    done = before.done() if before else set()
    with Writer(path) as writer:
        writer.write("env", **environment(facts, plan))
        bad = _check_kernels(lab, writer, before)
        count, number = plan.passes * len(plan.points), 0
        try:
            for turn in range(plan.passes):
                _anchors(lab, writer, f"before pass {turn}")
                for point in plan.order(turn):
                    number += 1
                    late = budget_s is not None and time.monotonic() - started > budget_s
                    if (turn, point.name) in done or (late and point.priority > 0):
                        continue
                    progress(number, count, point.name)
                    _measure_point(lab, writer, turn, point, bad)
            _anchors(lab, writer, "end")
            writer.write("end", seconds=round(time.monotonic() - started, 1))
        finally:
            lab.release()


def environment(facts: Facts, plan: Plan) -> dict[str, Any]:
    """The `env` record: device, software, settings of the card, plan."""
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__}
    if facts.kind != "cpu":
        import triton

        versions |= {"triton": triton.__version__, "cuda": str(torch.version.cuda or torch.version.hip)}
    return {
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": dataclasses.asdict(facts),
        "software": versions,
        "host": {"machine": platform.machine(), "system": platform.platform(), "processors": facts_processors()},
        "settings": {} if facts.kind == "cpu" else preflight.read_settings(facts.uuid),
        "plan": {"points": len(plan.points), "passes": plan.passes, "dropped": len(plan.dropped)},
    }


def facts_processors() -> int:
    """Processors that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_kernels(lab: Lab, writer: Writer, before: Samples | None) -> set[str]:
    """Names of the checks that failed; each is run once per file."""
    known = before.checks if before else ()
    if before and before.done():  # else the run was killed while it checked
        return {str(record["kernel"]) for record in known if not record["ok"]}
    failed = set()
    for result in _checks(lab):
        writer.write("check", **result)
        if not result["ok"]:
            failed.add(result["kernel"])
    return failed


def _checks(lab: Lab) -> Iterable[dict[str, Any]]:
    if lab.cpu:
        from calibration.suite import cpu_checks

        yield from cpu_checks.run()
        return
    from calibration.kernels import verify

    for result in verify.verify_all(lab.device):
        yield dataclasses.asdict(result)


def _measure_point(lab: Lab, writer: Writer, turn: int, point: Point, bad: set[str]) -> None:
    where = {"pass": turn, "name": point.name, "bench": point.bench, "key": dict(point.key)}
    prefixes = checked_by(point.bench, point.key)
    wrong = sorted(name for name in bad if name.startswith(prefixes))
    if wrong:
        writer.write("problem", **where, problem=f"not timed: {', '.join(wrong)} disagreed with torch")
        return

    def attempt() -> dict[str, Any]:
        trial = BENCHES[point.bench](lab, dict(point.key))
        lab.synchronize()
        return _numbers(trial, measure(lab, trial, point.samples, point.warmups, point.cold))

    try:
        numbers = _with_memory(lab, attempt)
    except Exception as error:  # noqa: BLE001 -- one point that fails (memory, a missing instruction) must not end the run
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        writer.write("problem", **where, problem=problem)
        _must_work(lab, writer.path, f"at {point.name} ({problem})")
        return
    writer.write("sample", **where, heldout=point.heldout, cold=point.cold, **numbers)


def _with_memory(lab: Lab, attempt: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `attempt` returns; if memory is too short, once more without the pools that others have left."""
    try:
        return attempt()
    except torch.OutOfMemoryError:
        pass  # out of the handler first: its traceback holds on to tensors
    lab.free_pools()
    return attempt()


def _must_work(lab: Lab, path: Path, where: str) -> None:
    """Raise InputError if the GPU takes no more work: some errors end everything that a process can do on it."""
    try:
        lab.synchronize()
    except RuntimeError:
        problem = f"the GPU failed {where} and takes no more work; what was measured is kept: go on with --resume"
        raise InputError(problem, where=path) from None


def _numbers(trial: Trial, found: Measured) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "us": [_microseconds(reading.device_s) for reading in found.readings],
        "host_us": [_microseconds(reading.host_s) for reading in found.readings],
        "nbytes": trial.nbytes,
        "flops": trial.flops,
        "flags": list(found.flags),
    }
    names = found.readings[0].extra
    if names:
        numbers["extra"] = {name: [reading.extra[name] for reading in found.readings] for name in names}
    return numbers


def _anchors(lab: Lab, writer: Writer, tag: str) -> None:
    for what in ("gemm", "copy"):
        writer.write("anchor", tag=tag, what=what, **_with_memory(lab, partial(_anchor, lab, what)))


def _anchor(lab: Lab, what: str) -> dict[str, Any]:
    trial = bench_host.anchor(lab, what)
    return _numbers(trial, measure(lab, trial, ANCHOR_SAMPLES, ANCHOR_WARMUPS, cold=False))


def _microseconds(seconds: float) -> float:
    """Rounded, but never 0: a clock that did not move is a nanosecond."""
    return max(round(1e6 * seconds, DECIMALS), 10.0**-DECIMALS)
