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
    timeline: Timeline = False,
    timeline_requests: TimelineRequests = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html of the run in DIR again, from its tables."""
    from reports.run_report import write_run_report

    written = write_run_report(run_dir, None if out is None else out / "report.html")
    files = {"report": str(written)}
    if not as_json:
        _print.line(str(written))
    if timeline or timeline_requests is not None:
        drawn = draw_timeline(run_dir, out, timeline_requests)
        files["timeline"] = str(drawn.path)
        (_print.note if as_json else _print.line)(drawn.line)
    if as_json:
        _print.document(files)
