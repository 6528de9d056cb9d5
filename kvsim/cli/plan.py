"""`kvsim plan`: the least hardware, or the highest rate, that meets an SLO, with its cost and the runs behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hw_profiles.errors import InputError
from kvsim.cli import _print
from kvsim.cli._options import AsJson, Settings, Strict, Vary, Workers, parse_setting
from kvsim.cli._progress import count_bar
from kvsim.cli._run_dir import may_make

if TYPE_CHECKING:
    from sim.whatif.plan import Plan
    from sim.whatif.points import Point
    from sim.whatif.prices import Cost

NO = 1
EARLY = "lost early: stopped when no completion of the remaining requests could meet the limit any more"
FRONTIER = ("frontier", "per hour", "of its tightest limit")


def plan(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file (YAML).")],
    find: Annotated[
        str,
        typer.Option(
            "--find",
            metavar="WHAT",
            help="replicas, rate, clients (of a closed loop), gpu, the size of a tier: tiers.dram.capacity; "
            "disaggregation.prefill or .decode.",
        ),
    ],
    slo: Annotated[
        str | None,
        typer.Option("--slo", metavar="M=T,...", help="ttft_p99=2s,tpot_p95=50ms; ttft=2s,tpot=50ms,attainment=90%."),
    ] = None,
    among: Annotated[str | None, typer.Option("--among", metavar="V,V", help="The values to try: 64GiB,1TiB.")] = None,
    vary: Vary = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", metavar="FILE", help="Your prices. [default: the table that ships]")
    ] = None,
    settings: Settings = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", help="Run the answer and its neighbours with N seeds each, too."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write plan.json and plan.html here.")
    ] = None,
    workers: Workers = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Find the least hardware, or the highest rate, that meets the SLO. Exit code 1 if nothing tried does."""
    from sim.scenario import Scenario
    from sim.whatif.grids import search_of
    from sim.whatif.plan import PlanJob, parse_slo, run_plans, with_slo
    from sim.whatif.plan_document import FILE, plan_document
    from sim.whatif.plan_seeds import with_seeds
    from sim.whatif.pool import worker_count
    from sim.whatif.prices import load_prices
    from sim.whatif.runs import Job
    from sim.whatif.variants import expand, parse_vary, read_list

    if out is not None:
        may_make(out)
    if seeds is not None and seeds < 2:
        raise InputError("", where="--seeds", found=seeds, allowed="a whole number >= 2")
    table = load_prices(prices)
    values = () if among is None else tuple(read_list("--among", among))
    lists, common = [parse_vary(text) for text in vary or []], [parse_setting(text) for text in settings or []]
    found = expand(Scenario.load(scenario), lists, common=common)
    variants = [replace(variant, scenario=with_slo(variant.scenario, slo)) for variant in found]
    for variant in variants:
        search = search_of(find, variant.scenario, values, table)
        if search.path in variant.settings:
            raise InputError("is searched for", where="--vary", path=search.path)
    share = None if slo is None else parse_slo(slo)[1]
    jobs = [PlanJob(Job.of(v.label, v.scenario, strict=strict), find, values, table, share) for v in variants]
    with count_bar(not as_json, "searches") as progress:
        plans = run_plans(jobs, workers=worker_count(workers), progress=progress)
    if seeds is not None:
        with count_bar(not as_json, "runs of other seeds") as progress:
            plans = with_seeds(plans, jobs, seeds, workers=worker_count(workers), progress=progress)
    document = plan_document(plans, variants, find, table)
    if out is not None:
        from hw_profiles.files import write_atomic
        from reports.kinds import write_report

        write_atomic(out / FILE, json.dumps(_print.plain(document), indent=1, allow_nan=False) + "\n")
        write_report(out)
    if as_json:
        _print.document(document)
    else:
        _show(plans, [f"worth: {one['text']}" for one in document["worth"]])
        for source in document["price_sources"]:
            _print.line(f"price: {source}")
    if out is not None:
        (_print.note if as_json else _print.line)(f"report: {out / 'plan.html'}")
    if all(found.answer is None for found in plans):
        raise typer.Exit(NO)


def _show(plans: list[Plan], worth: Sequence[str]) -> None:
    """One variant: every run of the search. Several: the answer of each, the cheapest per token last."""
    from sim.whatif.grids import gpus_beside

    if len(plans) == 1:
        _print.table(
            *_table([(point.shown, point, point is plans[0].answer) for point in plans[0].points], plans[0].what)
        )
    else:
        rows = [(f"{found.label}: {found.answer.shown if found.answer else 'none'}", found.answer) for found in plans]
        from sim.whatif.plan_document import cheapest

        best = cheapest(plans)
        marked = [(text, point, best is not None and point is best.answer) for text, point in rows]
        _print.table(*_table(marked, plans[0].what))
        _frontier(plans)
    if len(plans) == 1 and any(point.stopped and _stop(point) == "lost early" for point in plans[0].points):
        _print.line(EARLY)
    for found in plans:
        name = f"{found.label}: " if len(plans) > 1 else ""
        if found.answer is not None:
            gpus = gpus_beside(found.path, found.answer.shown, found.answer.gpus)
            bill = "" if found.answer.cost is None else f"; {_bill(found.answer.cost)}"
            _print.line(f"{name}{found.what} to meet the SLO: {found.answer.shown}{gpus}{bill}")
        for text in found.notes:
            _print.line(f"{name}{text}")
        if found.seeds:
            held = ", ".join(f"{one.shown} in {sum(one.met)}" for one in found.seeds)
            _print.line(f"{name}of {len(found.seeds[0].met)} seeds the SLO is met by {held}")
    for text in worth:
        _print.line(text)


def _table(rows: list[tuple[str, Point | None, bool]], what: str) -> tuple[list[Any], list[tuple[str, ...]]]:
    from reports.text import number, seconds, slo_label

    first = next((point for _, point, _ in rows if point is not None), None)
    keys = list(first.targets) if first is not None else []
    heads = [f"{slo_label(k)} (limit {seconds(first.targets[k]['target_ms'] / 1e3)})" for k in keys] if first else []
    share = next((p.attainment["target"] for _, p, _ in rows if p is not None and p.attainment is not None), None)
    if share is not None:
        heads.append(f"attainment (of {number(100 * share)} %)")
    names = [*heads, "SLO", "requests/s", "per hour", "per Mtok out"]
    table = []
    for text, point, mark in rows:
        if point is None:
            table.append((text, *("" for _ in heads), "missed", "", "", ""))
            continue
        shown = [_value(point, key) for key in keys]
        if share is not None:
            below = f"< {number(100 * share)} %" if point.lost == "attainment" else ""
            shown.append(below if point.attainment is None else f"{number(100 * point.attainment['value'])} %")
        cost = point.cost
        money = ["", ""] if cost is None else [_total(cost), number(cost.per_mtok, 3)]
        verdict = "met" if point.met else "missed" if point.whole else _stop(point)
        table.append((f"> {text}" if mark else text, *shown, verdict, number(point.requests_per_s, 3), *money))
    return [what, *(_print.Column(name.replace("\u00a0", " "), right=True) for name in names)], table


def _stop(point: Point) -> str:
    return "does not run" if not point.stopped else "rejected" if point.lost == "rejected" else "lost early"


def _value(point: Point, key: str) -> str:
    """A target's value; of a run that ended early, that it is beyond the limit, for the one that was lost."""
    from reports.text import seconds

    target = point.targets[key]
    if point.lost == key:
        return f"> {seconds(target['target_ms'] / 1e3)}"
    value = target["value_ms"]
    return "" if point.stopped else seconds(None if value is None else value / 1e3)


def _frontier(plans: list[Plan]) -> None:
    """What more money buys: runs that nothing cheaper comes as far below its limits as."""
    from reports.text import number, slo_label
    from sim.whatif.plan_document import frontier

    rows = []
    for plan, point, cost, ratio in frontier(plans):
        tightest = f"{number(100 * ratio, 3)} % ({slo_label(point.worst[0])})"
        rows.append((f"{plan.label}: {point.shown}", _total(cost), tightest))
    if len(rows) > 1:
        heads: list[str | _print.Column] = [
            "frontier",
            _print.Column("per hour", right=True),
            _print.Column("of its tightest limit", right=True),
        ]
        _print.table(heads, rows)


def _total(cost: Cost) -> str:
    """`12.5 USD`, or `12.5 USD + ssd` where something that it takes has no price."""
    from reports.text import number

    return " + ".join([f"{number(cost.total)} {cost.currency}", *cost.unpriced])


def _bill(cost: Cost) -> str:
    from reports.text import number

    items = [("GPUs", cost.gpu), ("hosts", cost.host), ("memory", cost.memory)]
    parts = ", ".join(
        f"{name} {number(value, 3)}" for name, value in [*items, *([("energy", cost.energy)] * bool(cost.energy))]
    )
    per_token = f"{number(cost.per_mtok, 3)} {cost.currency} per Mtok of output"
    bill = f"{number(cost.total)} {cost.currency}/h ({parts}), {per_token}"
    if cost.watts is None or cost.j_per_token is None:
        return bill
    return f"{bill}; at most {number(cost.watts / 1e3)} kW of GPUs, {number(cost.j_per_token)} J per token of output"
