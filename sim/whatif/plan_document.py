"""`plan.json`: the answers of `kvsim plan` with every run behind them (schema kvsim-plan/1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sim.config_hash import installed_version
from sim.scenario import Scenario
from sim.whatif.plan import Plan
from sim.whatif.points import Point
from sim.whatif.prices import Cost, Prices
from sim.whatif.variants import Variant, short_paths, value_label
from sim.whatif.worth import worth

SCHEMA = "kvsim-plan/1"
FILE = "plan.json"


def plan_document(plans: Sequence[Plan], variants: Sequence[Variant], find: str, prices: Prices) -> dict[str, Any]:
    """The plans of the variants as one document: asked, plans, cheapest by the token, frontier, worth, prices."""
    scenarios = [variant.scenario for variant in variants]
    best, spec = cheapest(plans), scenarios[0].spec
    return {
        "schema": SCHEMA,
        "version": installed_version(),
        "asked": {
            "find": find,
            "scenario": Path(scenarios[0].where).name,
            "trace": spec.trace.name or (Path(spec.trace.path).name if spec.trace.path else "generated"),
            "model": str(spec.model),
            "profile": str(spec.hardware.profile),
            "replicas": spec.hardware.replicas,
            "gpus_per_replica": spec.hardware.parallel.gpus,
            "rate_scale": spec.trace.rate_scale,
            "seed": spec.seed,
        },
        "plans": [
            {**found.document(), "variant": _named(variant)} for found, variant in zip(plans, variants, strict=True)
        ],
        "cheapest": None if best is None else best.label,
        "frontier": [
            {"label": plan.label, "shown": point.shown, "met": point.met, "cost": asdict(cost), "of_limit": ratio}
            for plan, point, cost, ratio in frontier(plans)
        ],
        "worth": [
            {**asdict(one), "text": one.text} for one in worth(plans, [found.settings for found in variants], prices)
        ],
        "price_sources": price_sources(plans, scenarios, prices),
    }


def _named(variant: Variant) -> str:
    """What a variant has that others have not, with the names of the settings: `dram.capacity=1 TiB`."""
    names = short_paths(list(variant.settings))
    return ", ".join(f"{names[path]}={value_label(value)}" for path, value in variant.settings.items())


def price_sources(plans: Sequence[Plan], scenarios: Sequence[Scenario], prices: Prices) -> tuple[str, ...]:
    """What the GPUs and tiers of these plans cost, and who says so."""
    gpus = {str(scenario.spec.hardware.profile) for scenario in scenarios}
    if any(found.path == "hardware.profile" for found in plans):
        gpus = {name for found in plans for name in found.shown}
    tiers = {tier.name for scenario in scenarios for tier in scenario.spec.tiers}
    return prices.told(gpus, tiers)


def cheapest(plans: Sequence[Plan]) -> Plan | None:
    """The plan whose answer costs least by the output token, or if none has a price takes the fewest GPUs; None if none
    has an answer.
    """
    feasible = [found for found in plans if found.answer is not None]
    return min(feasible, key=lambda found: _per_token(found.answer), default=None)


def frontier(plans: Sequence[Plan]) -> list[tuple[Plan, Point, Cost, float]]:
    """Runs that nothing cheaper comes as far below its limits as, the cheapest first, with cost and value / limit.

    Not those whose served requests are within the limits and that miss the SLO for the requests that they rejected.
    """
    runs = [(plan, point, point.cost, point.worst[1]) for plan in plans for point in plan.points if point.whole]
    priced = [(plan, point, cost, ratio) for plan, point, cost, ratio in runs if cost and (point.met or ratio > 1)]
    found: list[tuple[Plan, Point, Cost, float]] = []
    for run in sorted(priced, key=lambda run: (run[2].total, run[3])):
        if not found or run[3] < found[-1][3]:
            found.append(run)
    return found


def _per_token(point: Point | None) -> tuple[float, float]:
    value = None if point is None or point.cost is None else point.cost.per_mtok
    gpus = None if point is None else point.gpus
    return float("inf") if value is None else value, float("inf") if gpus is None else gpus
