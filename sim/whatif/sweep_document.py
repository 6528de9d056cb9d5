"""`sweep.json`: everything that a sweep's report needs, in one document beside the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from hw_profiles.units import BYTE_UNITS, RATE_UNITS, SECOND_UNITS, TOKEN_UNITS, parse_exact
from sim.config_hash import installed_version
from sim.metrics import METRICS
from sim.whatif.prices import Prices, cost
from sim.whatif.sweep_file import Sweep
from sim.whatif.variants import Variant, short_paths, value_label

SCHEMA = "kvsim-sweep-runs/1"
FILE = "sweep.json"
UNITS = (("B", BYTE_UNITS), ("B/s", RATE_UNITS), ("s", SECOND_UNITS), ("tok", TOKEN_UNITS))
WAYS = ("every combination", "random samples", "TPE search")

Row = Mapping[str, Any]


def save_sweep(
    name: str, sweep: Sweep, variants: Sequence[Variant], rows: Sequence[Row], prices: Prices, out: Path
) -> None:
    """Write `out`/sweep.json. Raises InputError where that cannot be done."""
    document = sweep_document(name, sweep, variants, rows, prices)
    write_atomic(out / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")


def sweep_document(
    name: str, sweep: Sweep, variants: Sequence[Variant], rows: Sequence[Row], prices: Prices
) -> dict[str, Any]:
    """The sweep called `name` as JSON: its axes, the metrics that any run has, and every run with what it costs.

    Numbers of an axis are SI (its `unit`); an axis of anything but numbers has none. Costs are by the hour and by 10^6
    output tokens, None where the price table lacks the GPU of a run (`no_price` says which).
    """
    paths = list(variants[0].settings) if variants else []
    names = short_paths(paths)
    known = {key for row in rows for key, value in row["metrics"].items() if value is not None}
    missing: dict[str, None] = {}
    spec = sweep.scenario.spec
    search = sweep.search
    return {
        "schema": SCHEMA,
        "version": installed_version(),
        "name": name,
        "scenario": Path(sweep.scenario.where).name,
        "trace": spec.trace.name or (Path(spec.trace.path).name if spec.trace.path else "generated"),
        "model": str(spec.model),
        "way": WAYS[2] if search else WAYS[1] if sweep.ranges else WAYS[0],
        "seed": sweep.seed if sweep.ranges else None,
        "search": None if search is None else asdict(search),
        "common": {path: value_label(value) for path, value in sweep.common},
        "slo": {key: limit * 1e3 for key, limit in spec.slo.items()},
        "axes": [
            {"path": path, "label": names[path], **_scale([variant.settings[path] for variant in variants])}
            for path in paths
        ],
        "metrics": [
            {key: getattr(metric, key) for key in ("key", "label", "unit", "better", "definition")}
            for metric in METRICS
            if metric.key in known
        ],
        "runs": [_run(variant, row, prices, missing) for variant, row in zip(variants, rows, strict=True)],
        "currency": prices.currency,
        "price_sources": list(prices.told(*_bought(rows))),
        "no_price": list(missing),
    }


def _run(variant: Variant, row: Row, prices: Prices, missing: dict[str, None]) -> dict[str, Any]:
    hardware = row.get("hardware")
    found: dict[str, float | None] = {"total": None, "per_mtok": None}
    if hardware is not None:
        try:
            price = cost(hardware, hardware["gpus_per_node"], prices)
            found = {"total": price.total, "per_mtok": price.per_mtok}
            missing.update(dict.fromkeys(f"tier {name}" for name in price.unpriced))
        except InputError as error:
            missing[str(error.found)] = None
    return {
        "label": variant.label,
        "values": {path: value_label(value) for path, value in variant.settings.items()},
        "numbers": {path: axis_number(value) for path, value in variant.settings.items()},
        "config_sha256": row["config_sha256"],
        "error": row["error"],
        "metrics": dict(row["metrics"]),
        "slo": dict(row["slo"]),
        "slo_met": all(target["met"] for target in row["slo"].values()) if row["slo"] else None,
        "rejected": 0 if hardware is None else hardware["rejected"],
        "gpus": None if hardware is None else hardware["hardware"]["gpus"],
        "cost_per_hour": found["total"],
        "cost_per_mtok": found["per_mtok"],
    }


def _bought(rows: Sequence[Row]) -> tuple[set[str], set[str]]:
    """GPUs and tiers of the runs."""
    ran = [row["hardware"] for row in rows if row.get("hardware") is not None]
    return {str(one["hardware"]["profile"]) for one in ran}, {name for one in ran for name in one["tiers"]}


def priced(summary: Mapping[str, Any], gpus_per_node: int) -> dict[str, Any]:
    """What of a summary `cost` reads, and how many requests were rejected: kept in the row of a run."""
    keys = ("profile", "gpus", "gpu_power_limit_w")
    return {
        "hardware": {key: summary["hardware"][key] for key in keys},
        "tiers": {name: {"capacity_bytes": tier["capacity_bytes"]} for name, tier in summary["tiers"].items()},
        "throughput": {"output_tokens_per_s": summary["throughput"]["output_tokens_per_s"]},
        "rejected": summary["requests"]["rejected"],
        "gpus_per_node": gpus_per_node,
    }


def axis_number(value: Any) -> float | None:
    """A setting as a number: numbers, and texts with a unit in SI; None for anything else."""
    found = _number(value)
    return None if found is None else found[0]


def _number(value: Any) -> tuple[float, str] | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value), ""
    for unit, table in UNITS if isinstance(value, str) else ():
        try:
            return float(parse_exact(value, table, unit)), unit
        except InputError:
            continue
    return None


def _scale(values: Sequence[Any]) -> dict[str, Any]:
    """If the values of an axis are all numbers, and their unit ("" without)."""
    found = [_number(value) for value in values]
    units = {unit for number, unit in (one for one in found if one is not None) if number}
    numeric = bool(found) and None not in found and len(units) <= 1
    return {"numeric": numeric, "unit": next(iter(units), "") if numeric else ""}
