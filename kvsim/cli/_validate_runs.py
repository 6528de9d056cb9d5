"""`kvsim validate runs` and `kvsim validate RUN`: simulated against measured runs of servers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kvsim.cli import _print

if TYPE_CHECKING:
    from calibration.measured_run import MeasuredRun
    from calibration.validate_runs import Row

SHAREGPT_PROFILE = "rtx-pro-6000-vllm-0.19"


def validate_runs(path: Path | None, *, as_json: bool, show_all: bool, quiet: bool) -> None:
    """Compare a run of one's own, or the public one, with its simulation; exit 1 when a target is missed."""
    import numpy as np

    from calibration.data import data_folder
    from calibration.measured_run import read_run, sharegpt_run
    from calibration.validate_runs import LEARN_S, compare, learn_host_time, sensitivity, simulate_run
    from hw_profiles.units import format_seconds

    if path is not None:
        run = read_run(path)
    else:
        data = data_folder("measured")
        run = sharegpt_run(data, data / "traces", SHAREGPT_PROFILE)
    late = run.queued_s >= LEARN_S
    judged = late if late.any() and not late.all() else np.ones(len(run), dtype=bool)
    host_time = learn_host_time(run)
    rows = compare(run, simulate_run(run, host_time), judged, targets=path is None)
    missed = [row for row in rows if row.missed]
    if as_json:
        _print.document([row.as_dict() for row in rows])
    else:
        if not quiet:
            _table(run, rows, int(judged.sum()))
            learned = f"from the requests of the first {LEARN_S:.0f} s"
            _print.line(
                f"host time per step: {format_seconds(host_time)}, {learned}; nothing else is fitted to the run"
            )
            if show_all:
                _sensitivity(sensitivity(run, judged))
        if path is None:
            held = sum(row.target is not None for row in rows)
            _print.line(f"{held - len(missed)} of {held} targets met")
    if missed:
        raise typer.Exit(1)


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
