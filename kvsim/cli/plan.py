"""`kvsim plan`: the least hardware, or the highest rate, that meets an SLO, with its cost and the runs behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Settings, Strict, Vary, Workers
from kvsim.cli._progress import count_bar
from kvsim.cli._run_dir import may_make

if TYPE_CHECKING:
    from sim.whatif.plan import Plan, Point
    from sim.whatif.prices import Prices

NO = 1


def plan(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (YAML).")],
    find: Annotated[
        str, typer.Option("--find", metavar="WHAT", help="replicas, rate, or the size of a tier: tiers.dram.capacity.")
    ],
    slo: Annotated[
        str | None,
        typer.Option("--slo", metavar="M=T,...", help="ttft_p99=2s,tpot_p95=50ms. [default: the scenario's]"),
    ] = None,
    among: Annotated[str | None, typer.Option("--among", metavar="V,V", help="The values to try: 64GiB,1TiB.")] = None,
    vary: Vary = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="FILE", help="Your prices. [default: the table that ships]")
    ] = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write plan.json here.")] = None,
    workers: Workers = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Find the least hardware, or the highest rate, that meets the SLO. Exit code 1 if nothing tried does."""
    from kvsim.cli.compare import set_all
    from sim.scenario import Scenario
    from sim.whatif.grids import search_of
    from sim.whatif.plan import PlanJob, run_plan, with_slo
    from sim.whatif.pool import run_all, worker_count
    from sim.whatif.prices import load_prices
    from sim.whatif.runs import Job
    from sim.whatif.variants import check_policies, expand, parse_vary, read_list

    if out is not None:
        may_make(out)
    base = with_slo(set_all(Scenario.load(scenario), settings or []), slo)
    check_policies(base)
    table = load_prices(prices)
    values = () if among is None else tuple(read_list("--among", among))
    variants = expand(base, [parse_vary(text) for text in vary or []])
    for variant in variants:
        search = search_of(find, variant.scenario, values)
        if search.path in variant.settings:
            raise InputError("is searched for", where="--vary", path=search.path)
    jobs = [PlanJob(Job.of(v.label, v.scenario, strict=strict), find, values, table) for v in variants]
    with count_bar(not as_json, "searches") as progress:
        plans = run_all(
            run_plan,
            jobs,
            workers=worker_count(workers),
            done=lambda index, _: progress(index + 1, len(jobs)) if progress is not None else None,
        )
    document = _document(plans, table)
    if out is not None:
        from hw_profiles.files import write_atomic

        write_atomic(out / "plan.json", json.dumps(_print.plain(document), indent=1, allow_nan=False) + "\n")
    if as_json:
        _print.document(document)
    else:
        _show(plans, table)
    if out is not None:
        (_print.note if as_json else _print.line)(f"plan: {out / 'plan.json'}")
    if all(found.answer is None for found in plans):
        raise typer.Exit(NO)


def _document(plans: list[Plan], prices: Prices) -> dict[str, Any]:
    best = _cheapest(plans)
    return {
        "schema": "kvsim-plan/1",
        "plans": [found.document() for found in plans],
        "cheapest": None if best is None else best.label,
        "price_sources": prices.sources,
    }


def _cheapest(plans: list[Plan]) -> Plan | None:
    feasible = [found for found in plans if found.answer is not None]
    return min(feasible, key=lambda found: _per_token(found.answer), default=None)


def _per_token(point: Point | None) -> float:
    value = None if point is None else point.cost.per_mtok
    return float("inf") if value is None else value


def _show(plans: list[Plan], prices: Prices) -> None:
    """One variant: every run of the search. Several: the answer of each, the cheapest per token last."""
    if len(plans) == 1:
        _print.table(
            *_table([(point.shown, point, point is plans[0].answer) for point in plans[0].points], plans[0].what)
        )
    else:
        rows = [(f"{found.label}: {found.answer.shown if found.answer else 'none'}", found.answer) for found in plans]
        best = _cheapest(plans)
        marked = [(text, point, best is not None and point is best.answer) for text, point in rows]
        _print.table(*_table(marked, plans[0].what))
    for found in plans:
        name = f"{found.label}: " if len(plans) > 1 else ""
        if found.answer is not None:
            _print.line(f"{name}{found.what} to meet the SLO: {found.answer.shown}; {_bill(found.answer)}")
        for text in found.notes:
            _print.line(f"{name}{text}")
    for source in prices.sources:
        _print.line(f"price: {source}")


def _table(rows: list[tuple[str, Point | None, bool]], what: str) -> tuple[list[Any], list[tuple[str, ...]]]:
    from reports.text import number, seconds, slo_label

    first = next((point for _, point, _ in rows if point is not None), None)
    keys = list(first.targets) if first is not None else []
    heads = [f"{slo_label(k)} (limit {seconds(first.targets[k]['target_ms'] / 1e3)})" for k in keys] if first else []
    names = [*heads, "SLO", "requests/s", "per hour", "per Mtok out"]
    table = []
    for text, point, mark in rows:
        if point is None:
            table.append((text, *("" for _ in heads), "missed", "", "", ""))
            continue
        shown = [seconds(None if (v := point.targets[k]["value_ms"]) is None else v / 1e3) for k in keys]
        money = [f"{number(point.cost.total)} {point.cost.currency}", number(point.cost.per_mtok, 3)]
        verdict = "met" if point.met else "missed"
        table.append((f"> {text}" if mark else text, *shown, verdict, number(point.requests_per_s, 3), *money))
    return [what, *(_print.Column(name.replace("\u00a0", " "), right=True) for name in names)], table


def _bill(point: Point) -> str:
    from reports.text import number

    cost = point.cost
    parts = ", ".join(
        f"{name} {number(value, 3)}"
        for name, value in (("GPUs", cost.gpu), ("hosts", cost.host), ("memory", cost.memory))
    )
    per_token = f"{number(cost.per_mtok, 3)} {cost.currency} per Mtok of output"
    return f"{number(cost.total)} {cost.currency}/h ({parts}), {per_token}"
