"""`kvsim run`: one simulation, its tables on the console, its run directory on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hw_profiles.errors import InputError
from hw_profiles.units import parse_seconds
from kvsim.cli import _print
from kvsim.cli._explain import explain_run
from kvsim.cli._options import (
    AsJson,
    Quiet,
    Settings,
    Strict,
    Timeline,
    TimelineRequests,
    Workers,
    draw_timeline,
    parse_setting,
)
from kvsim.cli._progress import simulation_bar
from kvsim.cli._run_dir import keep_scenario, may_write
from sim.invariants import InvariantError


def run(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (YAML).")],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Run directory; out/<scenario>-<hash> if not given."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of every random stream.")] = None,
    as_json: AsJson = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    timeline: Timeline = False,
    timeline_requests: TimelineRequests = None,
    check: Annotated[bool, typer.Option("--check", help="Check invariants all along, not only at the end.")] = False,
    bound: Annotated[
        bool, typer.Option("--bound", help="Also the least load + compute seconds that the run's lookups allow.")
    ] = False,
    save_cache_state: Annotated[
        bool,
        typer.Option("--save-cache-state", help="Also write cache_state.parquet, for `warm_start`."),
    ] = False,
    save_cache_state_at: Annotated[
        str | None,
        typer.Option(
            "--save-cache-state-at", metavar="TIME", help="The same as of a simulated time, such as 120s, not the end."
        ),
    ] = None,
    save_snapshot_at: Annotated[
        str | None,
        typer.Option(
            "--save-snapshot-at", metavar="TIME", help="Also write snapshot.json, for runs that go on from that time."
        ),
    ] = None,
    uncertainty: Annotated[
        int | None,
        typer.Option(
            "--uncertainty", metavar="N", help="N more runs on machines within the profile's intervals: bands."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Run again with each resource halved and doubled: what would move it.")
    ] = False,
    explain_requests: Annotated[
        int | None,
        typer.Option("--explain-requests", metavar="N", min=1, help="Requests of each of these. [default: first 2000]"),
    ] = None,
    workers: Workers = None,
    fail_on_slo: Annotated[bool, typer.Option("--fail-on-slo", help="Exit with 1 when the SLO is missed.")] = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Simulate SCENARIO: a table on the console, every table and a report in the run directory."""
    from kvsim import Scenario

    seeded = [] if seed is None else [("seed", seed)]
    spec = Scenario.load(scenario).set_all([*map(parse_setting, settings or ()), *seeded])
    if out is not None:
        may_write(out, scenario)
    if fail_on_slo and not spec.spec.slo:
        raise InputError("--fail-on-slo needs a target", where=scenario, path="slo", allowed="{ttft_p99: 2s}")
    if uncertainty is not None:
        from sim.uncertainty import check_runs

        check_runs(uncertainty)
    times = {"--save-cache-state-at": save_cache_state_at, "--save-snapshot-at": save_snapshot_at}
    state_at, snapshot_at = (None if text is None else _time(option, text) for option, text in times.items())

    with simulation_bar(wanted=not (quiet or as_json)) as tick:
        try:
            result = spec.run(
                progress=tick,
                check=check,
                strict=strict,
                bound=bound,
                save_cache_state=save_cache_state,
                save_cache_state_at=state_at,
                save_snapshot_at=snapshot_at,
            )
        except InvariantError as error:
            kept = out or Path("out") / f"{scenario.stem}-broken"
            keep_scenario(kept, spec.to_yaml())
            error.add_note(f"the scenario is kept in {kept}")
            raise
    if uncertainty is not None:
        from sim.uncertainty import with_uncertainty

        done = None if quiet or as_json else lambda count: _print.note(f"uncertainty: {count} of {uncertainty} runs")
        result = with_uncertainty(result, spec, uncertainty, done)
    summary = result.summary
    folder = out or Path("out") / f"{scenario.stem}-{summary['config_sha256'][:8]}"
    may_write(folder, scenario)
    saved = result.save(folder.resolve())  # resolved: a link to a folder, or `.`, means that folder
    moves = ""
    if explain or explain_requests is not None:
        moves = explain_run(result, spec, saved, explain_requests, workers, show=not (quiet or as_json))
    del result  # its tables are on disk, and a report reads what it needs of them
    if not no_report:
        from reports.kinds import write_report

        write_report(saved)

    drawn = None
    if timeline or timeline_requests is not None:
        drawn = draw_timeline(saved, None, timeline_requests)

    from kvsim.cli._summary import bound_line, print_summary
    from reports.verdict import verdict

    for warning in summary["warnings"]:
        _print.note(f"warning: {warning}")
    if as_json:
        _print.document(summary)
        _print.note(f"run directory: {folder}")
    else:
        if not quiet:
            print_summary(summary)
        if moves:
            _print.line(moves)
        if bound:
            _print.line(bound_line(summary["bound"]))
        _print.line(verdict(summary).line)
        _print.line(f"run directory: {folder}" if no_report else f"report: {folder / 'report.html'}")
    if drawn is not None:
        (_print.note if as_json else _print.line)(drawn.line)
    if fail_on_slo and not summary["slo"]["met"]:
        raise typer.Exit(1)


def _time(option: str, text: str) -> float:
    """The time in s that an option names. Raises InputError."""
    try:
        return parse_seconds(text)
    except InputError as error:
        raise error.at(where=option) from None
