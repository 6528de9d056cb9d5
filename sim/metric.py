"""What a metric is, and kinds of them that there are several of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One headline number: where it is found in the summary, and what it means."""

    key: str
    label: str
    unit: str
    better: str
    """"lower", "higher" or "" where neither is better."""
    definition: str
    value: Callable[[Summary], float | None]
    shown: Callable[[Summary], bool] = lambda _: True
    """False for runs that do not have what it measures."""


STATISTICS = {
    "mean": ("mean", "Mean of"),
    "p50": ("P50", "Median of"),
    "p95": ("P95", "95th percentile of"),
    "p99": ("P99", "99th percentile of"),
}


def latency(name: str, label: str, statistic: str, definition: str) -> Metric:
    """A statistic of a latency in ms."""
    shown, over = STATISTICS[statistic]
    return Metric(
        f"{name}_{statistic}_ms",
        f"{label}, {shown}",
        "ms",
        "lower",
        f"{over} {definition}",
        lambda s: s[f"{name}_ms"][statistic],
    )


def reused(tier: str, label: str, how: str) -> Metric:
    """Share of the prompt tokens that came from one tier."""
    return Metric(
        f"hit_{tier}",
        f"Reused from {label}",
        "%",
        "higher",
        f"Prompt tokens {how} / prompt tokens.",
        lambda s: percent(share_of(s["prefix"]["hit_tokens"].get(tier), s["prefix"]["input_tokens"])),
        lambda s: tier in s["tiers"],
    )


def time_share(key: str, label: str, better: str, definition: str, parts: tuple[str, ...]) -> Metric:
    """Share of the replica-seconds that the parts of `summary["time"]` make up."""
    return Metric(
        key,
        label,
        "%",
        better,
        definition,
        lambda s: percent(share_of(sum(s["time"][part] for part in parts), sum(s["time"].values()))),
    )


def percent(share: float | None) -> float | None:
    """A share in %."""
    return None if share is None else 100 * share


def share_of(part: float | None, whole: float) -> float | None:
    """part / whole, None where there is neither."""
    return None if part is None or not whole else part / whole


def never_loaded(summary: Summary) -> float | None:
    """Of the bytes stored in the tiers behind HBM, the share that nobody had loaded."""
    lower = [tier for name, tier in summary["tiers"].items() if name != "hbm"]
    return share_of(sum(t["never_loaded_bytes"] for t in lower), sum(t["stored_bytes"] for t in lower))
