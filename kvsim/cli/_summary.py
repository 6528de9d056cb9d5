"""A run's summary as console tables: the metrics, the latencies, where prompts came from, the links.

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
    percent,
    rate,
    seconds,
    tier_label,
)

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print every table of `summary` (the contents of summary.json)."""
    _metrics(summary["metrics"])
    _latencies(summary)
    _prefix(summary["prefix"])
    _links({name: link for name, link in summary["links"].items() if "busy_s" in link})
    _shared({name: link for name, link in summary["links"].items() if "busy_s" not in link})


def _metrics(metrics: list[Mapping[str, Any]]) -> None:
    below = tuple(f"{name}_" for name in LATENCIES)  # those have a table of their own
    shown = [metric for metric in metrics if not str(metric["key"]).startswith(below)]
    rows = [(str(metric["label"]), *metric_value(metric["value"], str(metric["unit"]))) for metric in shown]
    table(["metric", Column("value", right=True), "unit"], rows)


def _latencies(summary: Mapping[str, Any]) -> None:
    rows = [
        (METRIC_LABELS[name], *(number(summary[f"{name}_ms"][statistic]) for statistic in STATISTICS))
        for name in LATENCIES
    ]
    table(["latency (ms)", *(Column(name, right=True) for name in STATISTICS)], rows)


def _prefix(prefix: Mapping[str, Any]) -> None:
    total: int = prefix["input_tokens"]
    hits: Mapping[str, int] = prefix["hit_tokens"]
    counts = {f"hit in {tier_label(tier)}": tokens for tier, tokens in hits.items()}
    counts["computed"] = total - sum(hits.values())
    rows = [
        (what, number(tokens), percent(tokens / total if total else None)) for what, tokens in counts.items()
    ]
    if prefix["recomputed_tokens"]:
        rows.append(("computed again after preemption", number(prefix["recomputed_tokens"]), "extra"))
    table(["prompt tokens", Column("tokens", right=True), Column("share", right=True)], rows)


def _links(links: Mapping[str, Mapping[str, Any]]) -> None:
    rows = [
        (
            link_label(name),
            binary_bytes(link["bytes"]),
            seconds(link["busy_s"]),
            percent(link["utilization"]),
            number(link["queue_p99_ms"]),
        )
        for name, link in links.items()
    ]
    headings = ("moved", "busy", "utilization", "queue p99 (ms)")
    table(["link", *(Column(name, right=True) for name in headings)], rows)


def _shared(caps: Mapping[str, Mapping[str, Any]]) -> None:
    """Bandwidths that several links share."""
    if caps:
        rows = [
            (
                link_label(name),
                binary_bytes(cap["bytes"]),
                rate(cap["capacity_bytes_per_s"] / cap["count"]),
                percent(cap["utilization"]),
            )
            for name, cap in caps.items()
        ]
        headings = ("moved", "capacity each", "utilization")
        table(["shared bandwidth", *(Column(name, right=True) for name in headings)], rows)
