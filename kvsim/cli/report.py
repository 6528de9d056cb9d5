"""`kvsim report`: rebuild the report of a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kvsim.cli import _print
from kvsim.cli._options import AsJson, Timeline, TimelineRequests, draw_timeline


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory, as `kvsim run --out` wrote it.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write report.html here. [default: DIR itself]"),
    ] = None,
    tables: Annotated[
        str | None, typer.Option("--tables", metavar="csv|md", help="Also write tables/: metrics, tiers, links, parts.")
    ] = None,
    timeline: Timeline = False,
    timeline_requests: TimelineRequests = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html of the run in DIR again, from its tables."""
    from reports.run_report import write_run_report
    from reports.sheets import check_form, write_sheets

    if tables is not None:
        check_form(tables)
    written = write_run_report(run_dir, None if out is None else out / "report.html")
    files: dict[str, str | list[str]] = {"report": str(written)}
    if not as_json:
        _print.line(str(written))
    if tables is not None:
        files["tables"] = sheets = [str(file) for file in write_sheets(run_dir, tables, out)]
        for sheet in () if as_json else sheets:
            _print.line(sheet)
    if timeline or timeline_requests is not None:
        drawn = draw_timeline(run_dir, out, timeline_requests)
        files["timeline"] = str(drawn.path)
        (_print.note if as_json else _print.line)(drawn.line)
    if as_json:
        _print.document(files)
