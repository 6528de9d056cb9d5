"""`kvsim validate`: predicted times against measured ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Quiet
from kvsim.cli._validate_runs import validate_runs

if TYPE_CHECKING:
    from calibration.validate_kernels import Row
    from calibration.validate_runs import Row as RunRow

SUITES = ("all", "runs", "kernels")


def validate(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="[SUITE|RUN]",
            help="runs: simulations against public runs of vLLM and TensorRT-LLM. kernels: profiles against public "
            "kernel tables. Both by default. Or the JSONL file of a run of your own (docs/validation.md).",
            show_default=False,
        ),
    ] = "all",
    as_json: AsJson = False,
    show_all: Annotated[bool, typer.Option("--all", help="Rows without a target; of runs, their sensitivity.")] = False,
    quiet: Quiet = False,
) -> None:
    """Errors of predictions on measurements that no fit has seen; exit 1 when a target is missed."""
    own = Path(suite) if suite.endswith(".jsonl") else None
    if suite.endswith(".json"):
        text = "a benchmark's result is converted first: `kvsim trace convert RESULT --profile PROFILE`"
        raise InputError(text, found=suite, allowed="a .jsonl file of a run")
    if suite not in SUITES and own is None:
        raise InputError("unknown suite", found=suite, allowed=(*SUITES, "a .jsonl file of a run"), near=SUITES)
    rows: list[Row | RunRow] = []
    if suite != "kernels":
        rows += validate_runs(own, as_json=as_json, show_all=show_all, quiet=quiet)
    if suite in ("all", "kernels"):
        rows += _validate_kernels(as_json=as_json, show_all=show_all, quiet=quiet)
    if as_json:
        _print.document([row.as_dict() for row in rows])
    if any(row.missed for row in rows):
        raise typer.Exit(1)


def _validate_kernels(*, as_json: bool, show_all: bool, quiet: bool) -> list[Row]:
    """Errors of every shipped profile; printed, unless they will be JSON."""
    from calibration.data import data_folder
    from calibration.validate_kernels import validate_kernels

    rows = validate_kernels(data_folder(), (lambda name: None) if quiet or as_json else _print.note)
    missed = [row for row in rows if row.missed]
    if not as_json:
        if not quiet:
            _print_rows(rows if show_all else [row for row in rows if row.target is not None or "worst" in row.split])
            _print_reported(rows)
        held = sum(row.target is not None for row in rows)
        _print.line(f"{held - len(missed)} of {held} targets met; {len(rows)} rows in all (--all, --json)")
        for row in missed:
            _print.line(f"missed: {row.profile} {row.kernel}, {row.split}: {row.mape:.1%} > {row.target:.0%}")
    return rows


def _print_rows(rows: list[Row]) -> None:
    numbers = [_print.Column(name, right=True) for name in ("MAPE", "p90", "bias", "points", "target")]
    columns = [*map(_print.Column, ("profile", "kernel", "split")), *numbers, _print.Column("")]
    _print.table(columns, [_cells(row) for row in rows], title="Errors on held-out measurements")


def _print_reported(rows: list[Row]) -> None:
    """Formats of 8 and 4 bits, experts and all-reduce: no target, a line per profile."""
    from calibration.reported import REPORTED, reported_errors

    columns = [_print.Column("profile"), *(_print.Column(name, right=True) for name in REPORTED)]
    lines = [
        (profile, *(f"{found[name]:.1%}" if name in found else "–" for name in REPORTED))
        for profile, found in reported_errors(rows).items()
    ]
    _print.table(columns, lines, title="MAPE of kernels without a target: products (2), attention (2), experts (4)")


def _cells(row: Row) -> tuple[str, ...]:
    numbers = f"{row.mape:.1%}", f"{row.p90:.1%}", f"{row.bias:+.1%}", f"{row.n:,}"
    target = "" if row.target is None else f"{row.target:.0%}"
    return (row.profile, row.kernel, row.split, *numbers, target, "missed" if row.missed else "")
