"""`plan.json`: the answers of `kvsim plan` with every run behind them (schema kvsim-plan/1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sim.config_hash import installed_version
from sim.scenario import Scenario
from sim.whatif.plan import Plan, frontier
from sim.whatif.points import Point
from sim.whatif.prices import Prices

SCHEMA = "kvsim-plan/1"
FILE = "plan.json"


def plan_document(plans: Sequence[Plan], scenarios: Sequence[Scenario], find: str, prices: Prices) -> dict[str, Any]:
    """The plans of the variants `scenarios` as one document: asked, plans, cheapest by the token, frontier, prices."""
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
        "plans": [found.document() for found in plans],
        "cheapest": None if best is None else best.label,
        "frontier": [
            {"label": plan.label, "shown": point.shown, "met": point.met, "cost": asdict(cost), "of_limit": ratio}
            for plan, point, cost, ratio in frontier(plans)
        ],
        "price_sources": prices.sources,
    }


def cheapest(plans: Sequence[Plan]) -> Plan | None:
    """The plan whose answer costs least by the output token; None if none has an answer."""
    feasible = [found for found in plans if found.answer is not None]
    return min(feasible, key=lambda found: _per_token(found.answer), default=None)


def _per_token(point: Point | None) -> float:
    value = None if point is None or point.cost is None else point.cost.per_mtok
    return float("inf") if value is None else value
