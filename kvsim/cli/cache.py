"""`kvsim cache`: hit ratio by capacity and policy, or regret in the tiers of a scenario, without timing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Settings, Strict, parse_setting
from kvsim.cli._progress import count_bar
from kvsim.cli._run_dir import may_make

if TYPE_CHECKING:
    from sim.cache.regret import Regret
    from sim.cache.study import Study

POLICIES = "lru,belady"
SCENARIO_POLICIES = "scenario,belady"
CAPACITIES = "1Mtok,3Mtok,10Mtok,30Mtok,100Mtok"

ACROSS = 8
"""Policies that a table has room for side by side."""


def cache(
    trace: Annotated[
        str,
        typer.Argument(
            metavar="TRACE|SCENARIO",
            help="A catalog name (`kvsim list traces`) or a file with hash ids; or a scenario (.yaml).",
        ),
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="P,...",
            help="Eviction policies (`kvsim list policies`), belady, my_policy.py:MyPolicy, or with options "
            f"'{{name: s3fifo, small_ratio: 0.2}}'; of a scenario also scenario, what it says itself. "
            f"[default: {POLICIES}; of a scenario {SCENARIO_POLICIES}]",
        ),
    ] = None,
    capacity: Annotated[
        list[str] | None,
        typer.Option("--capacity", metavar="C,...", help=f"Tokens, or unbounded. [default: {CAPACITIES}]"),
    ] = None,
    block_tokens: Annotated[
        int | None,
        typer.Option("--block-tokens", help="Larger blocks: a multiple of the trace's. [default: the trace's]"),
    ] = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write cache.json, cache.csv and cache.html here.")
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Hit ratio of TRACE's prompts by capacity and eviction policy, with Belady's and the unbounded cache's.

    Of a SCENARIO: load + compute seconds of every policy in its tiers, their lower bound, and the regret.
    """
    is_scenario = Path(trace).suffix in (".yaml", ".yml")
    policies = read_policies(",".join(policy or [SCENARIO_POLICIES if is_scenario else POLICIES]))
    if out is not None:
        may_make(out)
    if is_scenario:
        for name, given in (("--capacity", capacity), ("--block-tokens", block_tokens)):
            if given is not None:
                raise InputError("of a trace only: a scenario's tiers have theirs", where=name, found=given)
        _regret(Path(trace), policies, settings or [], out, strict=strict, as_json=as_json)
        return
    if settings:
        raise InputError("of a scenario only", where="--set", found=settings[0])
    capacities = read_capacities(",".join(capacity or [CAPACITIES]))
    _hit_ratios(trace, policies, capacities, block_tokens, out, strict=strict, as_json=as_json)


def read_policies(text: str) -> list[Any]:
    """The policies in `lru,{name: s3fifo, small_ratio: 0.2}`: names and mappings. Raises InputError."""
    import yaml

    try:
        found: list[Any] = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        allowed = "names such as lru,belady or {name: s3fifo, small_ratio: 0.2}"
        raise InputError("", where="--policy", found=text, allowed=allowed) from None
    return found


def read_capacities(text: str) -> list[int | None]:
    """The capacities in `1Mtok,10Mtok,unbounded` in tokens, None for unbounded. Raises InputError."""
    from hw_profiles.units import parse_tokens

    try:
        return [None if part == "unbounded" else parse_tokens(part) for part in map(str.strip, text.split(","))]
    except InputError as error:
        raise error.at(where="--capacity") from None


# ---- a trace


def _hit_ratios(
    trace: str,
    policies: list[Any],
    capacities: list[int | None],
    block_tokens: int | None,
    out: Path | None,
    *,
    strict: bool,
    as_json: bool,
) -> None:
    from sim.cache.save import row_mappings, save_study
    from sim.cache.study import run_study
    from traces.catalog import load_trace

    loaded = load_trace(trace, strict=strict)
    for warning in loaded.warnings:
        _print.note(f"warning: {warning}")
    with count_bar(not as_json, "passes over the trace") as progress:
        study = run_study(
            loaded,
            policies,
            capacities,
            block_tokens=block_tokens,
            bounds=out is not None or not as_json,
            progress=progress,
        )
    if out is not None:
        from reports.kinds import write_report

        save_study(study, out)
        write_report(out)
    if as_json:
        _print.document(row_mappings(study))
    else:
        _show(study)
    _say_where(out, as_json=as_json)


def _show(study: Study) -> None:
    from reports.cache_report import columns, grid, headline
    from sim.cache.study import BOUNDS, RATIOS, engine_line

    names, rows = columns(study), grid(study)
    cells = [[f"{100 * row.hit_ratio:.1f} / {100 * row.block_hit_ratio:.1f}" for row in found] for _, found in rows]
    corner, heads, first = "capacity", names, [size for size, _ in rows]
    if len(names) > max(len(rows), ACROSS):  # many policies fit better down than across
        corner, heads, first = "policy", first, names
        cells = [list(column) for column in zip(*cells, strict=True)]
    _print.table(
        [corner, *(_print.Column(name, right=True, fold=True) for name in heads)],
        [(name, *line) for name, line in zip(first, cells, strict=True)],
        title=study.trace,
    )
    _print.line(f"Cells: hit ratio / block hit ratio, in per cent.\n{RATIOS}\n{BOUNDS}")
    _print.line(engine_line([*study.rows, *study.belady]))
    _print.line(headline(study))


# ---- a scenario


def _regret(
    path: Path, policies: list[Any], settings: list[str], out: Path | None, *, strict: bool, as_json: bool
) -> None:
    from sim.cache.regret import run_regret
    from sim.cache.save_regret import regret_document, save_regret
    from sim.scenario import Scenario

    scenario = Scenario.load(path).set_all(map(parse_setting, settings))
    with count_bar(not as_json, "policies") as progress:
        study = run_regret(scenario, policies, strict=strict, progress=progress)
    for warning in study.warnings:
        _print.note(f"warning: {warning}")
    if out is not None:
        from reports.kinds import write_report

        save_regret(study, out)
        write_report(out)
    if as_json:
        _print.document(regret_document(study))
    else:
        _show_regret(study)
    _say_where(out, as_json=as_json)


def _show_regret(study: Regret) -> None:
    from reports.regret_report import bound_cells, cells, columns, headline
    from sim.cache.bound import DEFINITION
    from sim.cache.regret import STILL

    heads = columns(study)
    _print.table(
        [heads[0], *(_print.Column(name, right=True) for name in heads[1:])],
        [*(cells(study, row) for row in study.rows), bound_cells(study)],
        title=f"{study.scenario}: {study.trace}",
    )
    _print.line(f"{DEFINITION}\n{STILL}")
    if study.left_out:
        _print.line(f"{study.left_out:,} requests are longer than a replica takes and left out.")
    _print.line(headline(study))


def _say_where(out: Path | None, *, as_json: bool) -> None:
    if out is not None:
        (_print.note if as_json else _print.line)(f"report: {out / 'cache.html'}")
