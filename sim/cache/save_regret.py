"""A regret study as one JSON document and as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hw_profiles.files import write_atomic
from sim.cache.bound import DEFINITION
from sim.cache.regret import STILL, PolicyRow, Regret

SCHEMA = "kvsim-regret/1"


def regret_document(study: Regret) -> dict[str, Any]:
    """The study as a JSON object (docs/cache.md has its fields)."""
    return {
        "schema": SCHEMA,
        "scenario": study.source,
        "name": study.scenario,
        "trace": study.trace,
        "requests": study.requests,
        "left_out": study.left_out,
        "input_tokens": study.input_tokens,
        "prefetch": study.prefetch,
        "warnings": list(study.warnings),
        "tiers": [
            {"name": t.name, "capacity_tokens": t.capacity_tokens, "load_s_per_token": t.load_s_per_token}
            for t in study.tiers
        ],
        "compute": {"chunk_tokens": study.prices.chunk, "s_per_token": study.prices.compute_s.tolist()},
        "bound": {
            "lower_bound_s": study.bound.seconds,
            "first_use_s": study.bound.first_s,
            "steps": [
                {"capacity_tokens": step.capacity, "missed_tokens": step.missed, "seconds": step.seconds}
                for step in study.bound.steps
            ],
        },
        "policies": [_row(study, row) for row in study.rows],
        "definition": f"{DEFINITION} {STILL}",
    }


def save_regret(study: Regret, folder: Path) -> None:
    """Write `folder/cache.json` (the document) and `folder/cache.csv` (a line per policy). Raises InputError."""
    write_atomic(folder / "cache.json", json.dumps(regret_document(study), indent=2, allow_nan=False) + "\n")
    rows = []
    for row in (_row(study, row) for row in study.rows):
        hits = {f"hit_{tier}_tokens": tokens for tier, tokens in row.pop("hit_tokens").items()}
        rows.append({"policy": row.pop("policy"), **hits, **row})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "cache.csv", text.getvalue())


def _row(study: Regret, row: PolicyRow) -> dict[str, Any]:
    return {
        "policy": row.policy,
        "hit_tokens": dict(row.hit_tokens),
        "computed_tokens": row.computed_tokens,
        "load_s": row.load_s,
        "compute_s": row.compute_s,
        "load_recompute_s": row.seconds,
        "lower_bound_s": study.bound.seconds,
        "regret": row.regret,
    }
