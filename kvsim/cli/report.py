"""`kvsim report`: rebuild the report of a run, a comparison, a sweep, a plan or a cache study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kvsim.cli import _print
from kvsim.cli._options import AsJson, Timeline, TimelineRequests, draw_timeline


def report(
    run_dir: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What `kvsim run`, compare, sweep, plan or cache wrote with --out."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the page here. [default: DIR itself]"),
    ] = None,
    tables: Annotated[
        str | None, typer.Option("--tables", metavar="csv|md", help="Also write tables/: metrics, tiers, links, parts.")
    ] = None,
    png: Annotated[
        list[str] | None,
        typer.Option("--png", metavar="NAME", help="Also draw a figure of the page (or all) as PNG. Needs kvsim[png]."),
    ] = None,
    timeline: Timeline = False,
    timeline_requests: TimelineRequests = None,
    timeline_from: Annotated[
        str | None,
        typer.Option(
            "--timeline-from", metavar="TIME", help="The same of what ends at this time, such as 120s, or later."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the page of DIR again: report.html of a run; compare.html, sweep.html, plan.html or cache.html."""
    from hw_profiles.errors import InputError
    from reports.kinds import RUN, kind_of, write_report
    from reports.sheets import check_form, write_sheets

    if tables is not None:
        check_form(tables)
    since = 0.0 if timeline_from is None else _seconds(timeline_from)
    kind = kind_of(run_dir)
    for option, given in (("--tables", tables), ("--timeline", timeline or timeline_requests or timeline_from)):
        if given and kind.name != RUN:
            raise InputError("is for the folder of a run", where=option, found=f"a {kind.name}: {run_dir}")
    written = write_report(run_dir, None if out is None else out / kind.page)
    files: dict[str, str | list[str]] = {"report": str(written)}
    if not as_json:
        _print.line(str(written))
    if tables is not None:
        files["tables"] = sheets = [str(file) for file in write_sheets(run_dir, tables, out)]
        for sheet in () if as_json else sheets:
            _print.line(sheet)
    if png:
        from reports.pictures import write_pictures

        files["png"] = drawn_files = [str(file) for file in write_pictures(run_dir, png, out)]
        for file in () if as_json else drawn_files:
            _print.line(file)
    if timeline or timeline_requests is not None or timeline_from is not None:
        drawn = draw_timeline(run_dir, out, timeline_requests, since)
        files["timeline"] = str(drawn.path)
        (_print.note if as_json else _print.line)(drawn.line)
    if as_json:
        _print.document(files)


def _seconds(text: str) -> float:
    from hw_profiles.errors import InputError
    from hw_profiles.units import parse_seconds

    try:
        return parse_seconds(text)
    except InputError as error:
        raise error.at(where="--timeline-from") from None
