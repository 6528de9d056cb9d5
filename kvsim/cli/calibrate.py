"""`kvsim calibrate import|show|check`: profiles from public measurements, and a look at profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kvsim.cli import _print
from kvsim.cli._options import AsJson, Quiet


def import_profile(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A machine's folder of tables, or aiconfigurator-core:SYSTEM.")
    ],
    layout: Annotated[
        str | None, typer.Option("--layout", help="aiconfigurator or llmservingsim; found by what is there.")
    ] = None,
    backend: Annotated[str, typer.Option("--backend", help="Whose kernels: vllm, sglang or trtllm.")] = "vllm",
    machine: Annotated[
        str | None, typer.Option("--machine", help="Machine sheet for what is not fitted; found by the device.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="[default: MACHINE-BACKEND.yaml]")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit a profile to public kernel measurements, score it on held-out ones, write it."""
    from datetime import UTC, datetime

    from calibration.importer import check_text, default_name, fit_all, profile_text, read_points
    from hw_profiles.files import write_atomic

    measured = read_points(path, layout, backend, machine)
    if not (quiet or as_json):
        _print.note(f"{measured.device}: {sum(map(len, measured.points)):,} points of {len(measured.points)} kernels")
    fits = fit_all(measured)
    target = out or Path(f"{default_name(measured)}-import.yaml")
    text = profile_text(target.stem, measured, fits, datetime.now(UTC).date())
    check_text(text, measured)
    write_atomic(target, text)
    rows = [(fit, split, score) for fit in fits for split, score in fit.scores.items()]
    if as_json:
        keys = ("mape", "p90", "bias", "n")
        scores = [
            {"kernel": fit.points.name, "split": split, **{key: getattr(score, key) for key in keys}}
            for fit, split, score in rows
        ]
        _print.document({"profile": str(target), "device": measured.device, "heldout": scores})
        return
    if not quiet:
        numbers = [_print.Column(name, right=True) for name in ("points", "MAPE", "p90", "bias")]
        columns = [_print.Column("kernel"), _print.Column("split"), *numbers]
        cells = [
            (fit.points.name, split, f"{score.n:,}", f"{score.mape:.1%}", f"{score.p90:.1%}", f"{score.bias:+.1%}")
            for fit, split, score in rows
        ]
        _print.table(columns, cells, title=f"{measured.device}: errors on held-out points")
    _print.line(f"profile: {target}")


def show_profiles(
    profiles: Annotated[list[str], typer.Argument(metavar="PROFILE...", help="Names or files of profiles.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write DIR/profiles.html: measured points, fits, residuals."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare profiles: what each of their kernels is charged with, and how well it was predicted."""
    from calibration.compare import compare

    table = compare(profiles)
    if as_json:
        _print.document(table.as_dict())
    else:
        names = [_print.Column(name, right=True) for name in table.names]
        for title, rows in table.sections.items():
            _print.table([_print.Column(title, fold=True), *names], rows)
    if out is not None:
        from reports.profiles_report import write_profiles_report

        written = write_profiles_report(table, out)
        (_print.note if as_json else _print.line)(f"report: {written}")


def check_profile(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A profile: the path of a YAML file, or a shipped name.")],
    as_json: AsJson = False,
) -> None:
    """Whether a profile can be used: its form, its units, rates below the datasheet's peaks."""
    from calibration.check import check

    found = check(file)
    if as_json:
        _print.document(found.as_dict())
        return
    for line in found.lines():
        _print.line(line)
