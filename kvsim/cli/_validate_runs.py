"""`kvsim validate runs` and `kvsim validate RUN`: simulated against measured runs of servers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvsim.cli import _print

if TYPE_CHECKING:
    from calibration.measured_run import MeasuredRun
    from calibration.validate_runs import Learnt, Row

SHAREGPT_PROFILE = "rtx-pro-6000-vllm-0.19"


def validate_runs(path: Path | None, *, as_json: bool, show_all: bool, quiet: bool) -> list[Row]:
    """Compare a run of one's own, or the public ones, with their simulation; print it, unless it will be JSON."""
    import numpy as np

    from calibration.data import data_folder
    from calibration.measured_run import read_run, sharegpt_run
    from calibration.validate_runs import (
        LEARN_S,
        Learnt,
        compare,
        given_host_time,
        latencies,
        learn_host_time,
        rejected,
        said,
        sensitivity,
        simulate_run,
        step_sensitivity,
    )

    if path is not None:
        run = read_run(path)
    else:
        data = data_folder("measured")
        run = sharegpt_run(data, data / "traces", SHAREGPT_PROFILE)
    given = given_host_time(run)
    everything = np.ones(len(run), dtype=bool)
    late = run.queued_s >= LEARN_S
    judged = late if given is None and late.any() else everything
    host_time = learn_host_time(run) if given is None else Learnt(given)
    result = simulate_run(run, host_time.seconds)
    refused = rejected(result)
    if refused:
        text = f"the simulator rejects {refused.total()} of {len(run)} requests, which are not judged: {said(refused)}"
        _print.note(f"{run.source}: {text}")
    rows = compare(run, result, judged, targets=path is None)
    missed = [row for row in rows if row.missed]
    loads = [] if path is not None else _maximum_loads(data, note=not (quiet or as_json))
    if not as_json:
        if not quiet:
            served = np.isfinite(latencies(result)["e2e"])
            _table(run, rows, int((judged & served).sum()))
            _print.line(_compared(run, result.summary, learnt=given is None and bool(late.any())))
            _print.line(_host_time(host_time, given=given is not None, itself=not late.any()))
            if show_all and any(row.metric == "tpot_mean" for row in rows):
                found = sensitivity(run, judged)
                _sensitivity(found)
                slopes = step_sensitivity(run, found).items()
                each = ", ".join(f"{metric.upper()} {slope:+.1f} %" for metric, slope in slopes)
                _print.line(f"1 % longer steps: {each} (means)")
            if loads:
                _loads(loads, show_all=show_all)
        if path is None:
            held = sum(row.target is not None for row in rows)
            _print.line(f"{held - len(missed)} of {held} targets met")
    if host_time.doubt and (quiet or as_json):
        _print.note(f"{run.source}: host time per step {host_time.doubt}")
    return [*rows, *loads]


def _compared(run: MeasuredRun, summary: Mapping[str, Any], *, learnt: bool) -> str:
    """What stands in the columns: which requests, and what was simulated with which hardware times."""
    from calibration.validate_runs import LEARN_S
    from reports.provenance import trust_line

    asked = [*run.engine.items(), *run.sections.items(), ("prefix_caching", run.prefix_caching)]
    said = ", ".join(f"{key} {json.dumps(value)}" for key, value in asked)
    which = f"those queued after the first {LEARN_S:.0f} s" if learnt else "all of them"
    return (
        f"measured: {run.source}, judged are {which}; simulated: the same requests, {run.model} on {run.profile}, "
        f"{said}; error: simulated / measured - 1\n{trust_line(summary).removesuffix('.')}"
    )


def _host_time(found: Learnt, *, given: bool, itself: bool) -> str:
    """Where the host time is from. itself: it was learnt from the requests that are judged."""
    from calibration.validate_runs import LEARN_S
    from hw_profiles.units import format_seconds

    text = f"host time per step: {format_seconds(found.seconds)}"
    if given:
        return f"{text}, as the run gives it; nothing is fitted to the run"
    if found.doubt:
        text += f", {found.doubt}"
    else:
        text += f", from the requests of the first {LEARN_S:.0f} s; nothing else is fitted to the run"
    return f"{text}. None came later, so the run is judged on the requests it was learnt from" if itself else text


def _maximum_loads(data: Path, *, note: bool) -> list[Row]:
    """The rows of suite trtllm; none where its table is not among the data."""
    from calibration.validate_trtllm import TABLE, validate_trtllm

    if not (data / TABLE).is_file():
        _print.note(f"no {TABLE} in {data}: suite trtllm is left out")
        return []
    if note:
        _print.note("trtllm: published maximum loads, about half a minute")
    return validate_trtllm(data)


def _loads(rows: list[Row], *, show_all: bool) -> None:
    """Errors of suite trtllm by model, GPU and ranks; every row with `show_all`."""
    import numpy as np

    if show_all:
        numbers = [_print.Column(name, right=True) for name in ("measured", "simulated", "error")]
        cells = [(row.metric, f"{row.measured:,.0f}", f"{row.simulated:,.0f}", f"{row.error:+.1%}") for row in rows]
        _print.table([_print.Column("metric"), *numbers], cells, title="TensorRT-LLM v0.17, maximum load")
        return
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(" ".join(row.metric.split()[1:4]), []).append(row.error)
    numbers = [_print.Column(name, right=True) for name in ("loads", "median error", "from", "to")]
    found = [
        (name, str(len(errors)), *(f"{error:+.1%}" for error in (np.median(errors), min(errors), max(errors))))
        for name, errors in groups.items()
    ]
    found.append(("all, without signs", str(len(rows)), f"{np.median([abs(row.error) for row in rows]):.1%}", "", ""))
    title = (
        "TensorRT-LLM v0.17, output tokens/s at maximum load, engine.kind: tensorrt_llm: no target (--all: every load)"
    )
    _print.table([_print.Column("model, GPU, ranks"), *numbers], found, title=title)


def _table(run: MeasuredRun, rows: Iterable[Row], judged: int) -> None:
    numbers = [_print.Column(name, right=True) for name in ("measured", "simulated", "error", "target")]
    columns = [_print.Column("metric"), *numbers, _print.Column("")]
    title = f"{run.name}: {judged} of {len(run)} requests judged"
    _print.table(columns, [_cells(row) for row in rows], title=title)


def _cells(row: Row) -> tuple[str, ...]:
    from hw_profiles.units import format_seconds

    timed = row.metric.split("_")[0] in ("ttft", "tpot", "e2e")
    shown = [format_seconds(x) if timed else f"{x:,.4g}" for x in (row.measured, row.simulated)]
    target = "" if row.target is None else f"{row.target:.1%}"
    return (row.metric, *shown, f"{row.error:+.1%}", target, "missed" if row.missed else "")


def _sensitivity(found: Iterable[tuple[float, bool, dict[str, float]]]) -> None:
    from hw_profiles.units import format_seconds

    columns = [_print.Column("host time", right=True), _print.Column("prefix caching")]
    columns += [_print.Column(f"{name} mean", right=True) for name in ("TTFT", "TPOT", "E2E")]
    rows = [
        (format_seconds(seconds), "on" if caching else "off", *(f"{error:+.1%}" for error in errors.values()))
        for seconds, caching, errors in found
    ]
    _print.table(columns, rows, title="Errors by what was not recorded")
