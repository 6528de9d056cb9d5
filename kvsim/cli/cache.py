"""`kvsim cache`: hit ratio by capacity and policy, without timing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Strict
from kvsim.cli._progress import count_bar
from kvsim.cli._run_dir import may_make

if TYPE_CHECKING:
    from sim.cache.study import Study

POLICIES = "lru,belady"
CAPACITIES = "1Mtok,3Mtok,10Mtok,30Mtok,100Mtok"

ACROSS = 8
"""Policies that a table has room for side by side."""


def cache(
    trace: Annotated[
        str, typer.Argument(metavar="TRACE", help="A catalog name (`kvsim list traces`) or a file with hash ids.")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="P,...",
            help="Eviction policies (`kvsim list policies`), belady, my_policy.py:MyPolicy, or with options "
            f"'{{name: s3fifo, small_ratio: 0.2}}'. [default: {POLICIES}]",
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
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write cache.json, cache.csv and cache.html here.")
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Hit ratio of TRACE's prompts by capacity and eviction policy, with Belady's and the unbounded cache's."""
    policies = read_policies(",".join(policy or [POLICIES]))
    capacities = read_capacities(",".join(capacity or [CAPACITIES]))
    if out is not None:
        may_make(out)
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
        from reports.cache_report import write_cache_report

        save_study(study, out)
        write_cache_report(study, out)
    if as_json:
        _print.document(row_mappings(study))
    else:
        _show(study)
    if out is not None:
        (_print.note if as_json else _print.line)(f"report: {out / 'cache.html'}")


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


def _show(study: Study) -> None:
    from reports.cache_report import columns, grid, headline
    from sim.cache.study import BOUNDS, RATIOS

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
    _print.line(headline(study))
