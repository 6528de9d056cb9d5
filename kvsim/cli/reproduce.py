"""`kvsim reproduce`: what papers published, in their own settings, beside what the simulator makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvsim.cli import _print
from kvsim.cli._options import AsJson, Quiet, Workers
from kvsim.cli._progress import count_bar
from kvsim.cli._run_dir import may_make

if TYPE_CHECKING:
    from sim.reproduce.rows import Verdict

NO = 1


def reproduce(
    systems: Annotated[
        list[str] | None, typer.Argument(metavar="[SYSTEM...]", help="Systems such as arkvale or lckv. [default: all]")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The subset that runs in two minutes.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write reproduce.html, .md, .csv and .json here.")
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Published figures of KV-cache systems against simulated ones; exit 1 when a judged target is missed."""
    import json

    from hw_profiles.files import write_atomic
    from reports.reproduce_text import summary_line
    from sim.reproduce.harness import reproduce as run_tables
    from sim.reproduce.systems import tables_of
    from sim.whatif.pool import worker_count

    tables = tables_of(systems or [], quick=quick)
    if out is not None:
        may_make(out)
    with count_bar(not (as_json or quiet), "runs") as progress:
        verdicts = run_tables(tables, workers=worker_count(workers), progress=progress)
    rows = [row.as_dict() for found in verdicts for row in found.rows]
    if as_json:
        _print.document(rows)
    else:
        if not quiet:
            _show(verdicts)
        _print.line(summary_line(verdicts))
        for found in verdicts:
            if found.met is False:
                _print.line(f"missed: {found.table.system}, {found.table.where}: {found.text}")
    if out is not None:
        from kvsim import __version__
        from reports.reproduce_report import write_reproduce_report

        page = write_reproduce_report(verdicts, out, __version__)
        write_atomic(out / "reproduce.json", json.dumps(_print.plain(rows), indent=1, allow_nan=False) + "\n")
        (_print.note if as_json else _print.line)(f"report: {page}")
    if any(found.met is False for found in verdicts):
        raise typer.Exit(NO)


def _show(verdicts: list[Verdict]) -> None:
    """A table for each system, and a line for each of its tables."""
    from reports.reproduce_text import COLUMNS, NUMBERS, cells

    columns = [_print.Column(title, right=k in NUMBERS) for k, title in enumerate(COLUMNS)][1:]
    for system in dict.fromkeys(found.table.system for found in verdicts):
        own = [found for found in verdicts if found.table.system == system]
        _print.table(columns, [cells(row)[1:] for found in own for row in found.rows], title=system)
        for found in own:
            _print.line(f"{found.table.where}: {found.text}")
        _print.line()
