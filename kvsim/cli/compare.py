"""`kvsim compare`: variants of a scenario, or several runs, side by side with intervals of their differences."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Settings, Strict, Vary, Workers, parse_setting
from kvsim.cli._progress import count_bar
from kvsim.cli._run_dir import may_make, may_write

if TYPE_CHECKING:
    from sim.scenario import Scenario
    from sim.whatif.compare import Comparison
    from sim.whatif.runs import Run

SEEDS = 5
"""Runs of each variant where the load is generated and --seeds is not given."""
UNMOVED = "nothing of this load is drawn by the seed"


def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SCENARIO|RUN...", help="A scenario with --vary; or scenarios and run folders."),
    ],
    vary: Vary = None,
    settings: Settings = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", help=f"Runs of each variant, seed by seed. [default: {SEEDS} if the load is generated]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write compare.json, compare.html and every run here.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Judge whole runs, also those that all go on from a snapshot.")
    ] = False,
    workers: Workers = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Compare variants of a scenario, or runs: each metric, and its difference to the first with a 90 % interval."""
    from sim.whatif.compare import compare as compare_runs

    if out is not None:
        may_make(out)
    if seeds is not None and seeds < 1:
        raise InputError("", where="--seeds", found=seeds, allowed="a whole number >= 1")
    scenarios = _scenarios(sources, vary or [], settings or [])
    groups, folders = _run(scenarios, seeds, out, workers=workers, strict=strict, as_json=as_json)
    found = compare_runs(groups, whole=whole)
    document = found.document()
    for entry, runs, folder in zip(document["variants"], groups, folders, strict=True):
        entry["run"] = None if out is None or folder is None else os.path.relpath(folder, out)
        entry["seeds"] = len(runs)
    for warning in dict.fromkeys(w for summary in found.summaries for w in summary["warnings"]):
        _print.note(f"warning: {warning}")
    if out is not None:
        import json

        from hw_profiles.files import write_atomic
        from reports.compare_data import FILE
        from reports.kinds import write_report

        write_atomic(out / FILE, json.dumps(_print.plain(document), indent=1, allow_nan=False) + "\n")
        write_report(out)
    if as_json:
        _print.document(document)
    else:
        show(found)
    if out is not None:
        (_print.note if as_json else _print.line)(f"report: {out / 'compare.html'}")


def _scenarios(sources: list[Path], vary: list[str], settings: list[str]) -> list[tuple[str, Scenario | Path]]:
    """What to compare, in order: scenarios to run and run directories to read, each with its label."""
    from sim.scenario import Scenario
    from sim.whatif.variants import expand, parse_vary

    if vary:
        if len(sources) > 1 or sources[0].is_dir():
            raise InputError(
                "--vary takes one scenario", where=sources[-1], found=str(sources[-1]), allowed="one .yaml"
            )
        common = [parse_setting(text) for text in settings]
        variants = expand(Scenario.load(sources[0]), [parse_vary(text) for text in vary], common=common)
        if len(variants) < 2:
            raise InputError("nothing to compare", where="--vary", found=vary[0], allowed="two values or more")
        if "seed" in variants[0].settings and not any(variant.scenario.spec.trace.drawn for variant in variants):
            _print.note(f"warning: {UNMOVED}, so --vary seed changes nothing")
        return [(variant.label, variant.scenario) for variant in variants]
    if len(sources) < 2:
        raise InputError(
            "nothing to compare", where=sources[0], allowed="--vary PATH=VALUE,VALUE, or two runs or scenarios"
        )
    labels = _labels(sources)
    return [
        (label, path if path.is_dir() else Scenario.load(path).set_all(map(parse_setting, settings)))
        for label, path in zip(labels, sources, strict=True)
    ]


def _labels(paths: list[Path]) -> list[str]:
    """The shortest names that tell the paths apart; the same path twice is numbered."""
    names = [path.stem if path.suffix in (".yaml", ".yml") else path.name for path in paths]
    whole = [str(path) for path in paths]
    for unique in (names, whole):
        if len(set(unique)) == len(paths):
            return unique
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _run(
    found: list[tuple[str, Scenario | Path]],
    seeds: int | None,
    out: Path | None,
    *,
    workers: int | None,
    strict: bool,
    as_json: bool,
) -> tuple[list[list[Run]], list[Path | None]]:
    """Run the scenarios, read the rest: for each one run, or a run for each seed; and where the first of each is."""
    from sim.snapshot import SUFFIX
    from sim.whatif.pool import worker_count
    from sim.whatif.runs import Job, load_run, run_jobs

    folders = [source for _, source in found if isinstance(source, Path)]
    scenarios = [source for _, source in found if not isinstance(source, Path)]
    drawn = [s.spec.trace.drawn for s in scenarios]
    generated = all(drawn) and all(s.spec.trace.generate or s.spec.trace.clients for s in scenarios)
    goes_on = [s for s in scenarios if s.spec.warm_start is not None and s.spec.warm_start.path.endswith(SUFFIX)]
    many = seeds if seeds is not None else SEEDS if scenarios and generated and not folders and not goes_on else 1
    if goes_on and many > 1:
        text = "a run that goes on from a snapshot has the snapshot's seed"
        raise InputError(text, where="--seeds", found=many, allowed="1")
    if folders and many > 1:
        raise InputError("a run directory has one seed", where="--seeds", found=many, allowed="1, or scenarios only")
    if many > 1 and not any(drawn):
        text = f"{UNMOVED}, so {many} runs of it are one"
        raise InputError(text, where="--seeds", found=many, allowed="1, or trace.spread_arrivals or trace.arrival_rate")
    read = {label: [load_run(source, label)] for label, source in found if isinstance(source, Path)}
    jobs = []
    places: dict[str, Path | None] = {label: source if isinstance(source, Path) else None for label, source in found}
    for number, (label, source) in enumerate(found, 1):
        if isinstance(source, Path):
            continue
        for offset in range(many):
            folder = None if out is None or offset else out / f"{number}-{_file_name(label)}"
            if folder is not None:
                may_write(folder, Path(source.where))
                places[label] = folder
            seeded = source.set("seed", source.spec.seed + offset) if offset else source
            jobs.append(Job.of(label, seeded, out=folder, strict=strict))
    with count_bar(not as_json, "runs") as progress:
        runs = iter(run_jobs(jobs, workers=worker_count(workers), progress=progress))
    groups = [read[label] if label in read else [next(runs) for _ in range(many)] for label, _ in found]
    return groups, [places[label] for label, _ in found]


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", label).strip("-.")[:60] or "run"


def show(found: Comparison) -> None:
    """Print the table, how its intervals were made, and what could not be told apart."""
    from reports.compare_text import COLUMNS_NOTE, cells, headline, method_lines

    first, *others = found.labels
    columns = [_print.Column(first, right=True)]
    for label in others:
        columns += [_print.Column(label, right=True), _print.Column("difference [90 %]", right=True)]
    _print.table(["metric", "unit", *columns], [cells(found, row) for row in found.rows])
    _print.line(COLUMNS_NOTE)
    for text in (*method_lines(found), *headline(found)):
        _print.line(text)
