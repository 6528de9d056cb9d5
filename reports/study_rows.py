"""Tables of what studies wrote, one mapping a row: for a notebook's frames. Numbers are those of the files."""

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]
Document = Mapping[str, Any]


def of_comparison(document: Document) -> dict[str, Rows]:
    """Of compare.json. variants: a row each; metrics: a row for each metric and variant.

    difference, low, high and verdict are those to the first variant, which has none.
    """
    methods = document["methods"]
    variants = [{**one, "method": methods.get(one["label"])} for one in document["variants"]]
    about = ("key", "label", "unit", "better", "definition")
    metrics = [
        {
            **{key: metric[key] for key in about},
            "variant": label,
            "value": value,
            **_difference(metric["differences"].get(label)),
        }
        for metric in document["metrics"]
        for label, value in metric["values"].items()
    ]
    return {"variants": variants, "metrics": metrics}


def _difference(found: Mapping[str, Any] | None) -> dict[str, Any]:
    keys = {"difference": "value", "low": "low", "high": "high", "verdict": "verdict"}
    return {name: None if found is None else found[key] for name, key in keys.items()}


def of_sweep(document: Document) -> dict[str, Rows]:
    """Of sweep.json. runs: a row each, what varies by its dotted path (numbers in SI), metrics by key, SLO and cost."""
    plain = ("error", "slo_met", "rejected", "gpus", "cost_per_hour", "cost_per_mtok", "config_sha256")
    runs = [
        {
            "label": run["label"],
            **{path: text if run["numbers"][path] is None else run["numbers"][path] for path, text in _values(run)},
            **{metric["key"]: run["metrics"].get(metric["key"]) for metric in document["metrics"]},
            **{key: run[key] for key in plain},
        }
        for run in document["runs"]
    ]
    return {"runs": runs, "axes": document["axes"], "metrics": document["metrics"]}


def _values(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(run["values"].items())


def of_plan(document: Document) -> dict[str, Rows]:
    """Of plan.json. runs: every run of every search; answers: the one of each search; seeds: a row for each seed.

    Targets are columns <target>_ms with <target>_limit_ms beside, costs are those of an hour.
    """
    plans = document["plans"]
    runs = [
        {"plan": plan["label"], "what": plan["what"], **_point(point)} for plan in plans for point in plan["points"]
    ]
    answers = [
        {"plan": plan["label"], "what": plan["what"], **({} if plan["answer"] is None else _point(plan["answer"]))}
        for plan in plans
    ]
    seeds = [
        {
            "plan": plan["label"],
            "shown": check["shown"],
            "seed": seed,
            "met": met,
            **{f"{target}_ms": values[place] for target, values in check["values"].items()},
        }
        for plan in plans
        for check in plan["seeds"]
        for place, (seed, met) in enumerate(zip(check["seeds"], check["met"], strict=True))
    ]
    return {"runs": runs, "answers": answers, "seeds": seeds}


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    cost = point["cost"] or {}
    share = point["attainment"] or {}
    targets = {
        f"{key}{ending}_ms": target[field]
        for key, target in point["targets"].items()
        for ending, field in (("", "value_ms"), ("_limit", "target_ms"))
    }
    plain = ("index", "shown", "met", "requests_per_s")
    ended = ("lost", "stopped", "rejected", "failed")
    return {
        **{key: point[key] for key in plain},
        **targets,
        "attainment": share.get("value"),
        **{f"cost_{key}": cost.get(key) for key in ("total", "per_mtok", "gpu", "host", "memory", "energy")},
        "currency": cost.get("currency"),
        **{key: point[key] for key in ended},
    }


def of_cache_study(document: Any) -> dict[str, Rows]:
    """Of cache.json. Of a trace: hit ratios by policy and capacity; of a scenario: policies, tiers, the bound."""
    if isinstance(document, list):
        return {"rows": document}
    policies = [
        {
            **{key: value for key, value in row.items() if key != "hit_tokens"},
            **{f"hit_{tier}_tokens": tokens for tier, tokens in row["hit_tokens"].items()},
        }
        for row in document["policies"]
    ]
    return {"policies": policies, "tiers": document["tiers"], "bound": document["bound"]["steps"]}
