"""A run's summary as one console table: latencies, metrics, where prompts came from, links.

Numbers and names are spelled by `reports.text`, so the console and the report say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvsim.cli._print import Column, table
from reports.text import (
    METRIC_LABELS,
    binary_bytes,
    link_label,
    metric_value,
    number,
    rate,
    tier_label,
)

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")

Row = tuple[str, ...]
"""Cells of a row; missing ones at its end are empty."""


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print `summary` (the contents of summary.json) as one table."""
    links = summary["links"].items()
    rows = [
        *(_latency(summary, name) for name in LATENCIES),
        *_metrics(summary["metrics"]),
        *_prefix(summary["prefix"]),
        *(row for name, link in links for row in (_link(name, link) if "busy_s" in link else _shared(name, link))),
    ]
    right = [Column(name, right=True) for name in ("mean or value", *STATISTICS[1:])]
    table(["metric", "unit", *right], rows)


def _latency(summary: Mapping[str, Any], name: str) -> Row:
    return (METRIC_LABELS[name], "ms", *(number(summary[f"{name}_ms"][s]) for s in STATISTICS))


def _metrics(metrics: list[Mapping[str, Any]]) -> list[Row]:
    above = tuple(f"{name}_" for name in LATENCIES)  # those have rows of their own
    shown = [m for m in metrics if not str(m["key"]).startswith(above)]
    pairs = [(str(m["label"]), metric_value(m["value"], str(m["unit"]))) for m in shown]
    return [(label, unit, value) for label, (value, unit) in pairs]


def _prefix(prefix: Mapping[str, Any]) -> list[Row]:
    total: int = prefix["input_tokens"]
    hits: Mapping[str, int] = prefix["hit_tokens"]
    counts = {f"Prompt tokens from {tier_label(tier)}": tokens for tier, tokens in hits.items()}
    counts["Prompt tokens computed"] = total - sum(hits.values())
    return [(what, "tokens", number(tokens)) for what, tokens in counts.items()]


def _link(name: str, link: Mapping[str, Any]) -> list[Row]:
    """One direction: what moved, and how busy it was; the P99 of its queue stands in that column."""
    moved, unit = binary_bytes(link["bytes"]).replace("\u00a0", " ").split(" ")
    label = link_label(name)
    return [
        (label, unit, moved),
        (f"{label}, busy", "%", number(100 * link["utilization"])),
        (f"{label}, queue", "ms", "", "", "", "", number(link["queue_p99_ms"])),
    ]


def _shared(name: str, cap: Mapping[str, Any]) -> list[Row]:
    """A bandwidth that several links share."""
    each = rate(cap["capacity_bytes_per_s"] / cap["count"])
    return [(f"{link_label(name)}, of {each}", "%", number(100 * cap["utilization"]))]
