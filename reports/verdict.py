"""The answer in one line: SLO met or missed and by how much, or the headline numbers when no SLO is set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reports.load import section
from reports.text import is_number, number, percent, seconds, slo_label


@dataclass(frozen=True)
class Target:
    """One SLO target as the report shows it."""

    label: str
    limit: str
    value: str
    met: bool
    margin: str  # "37 % below the limit"
    fill: float  # measured value on a scale where the limit is at 50, for the bar (0..100)


@dataclass(frozen=True)
class Verdict:
    """`state` is met, missed or none; `line` is the sentence; `extra` follows it in small print."""

    state: str
    line: str
    targets: tuple[Target, ...]
    extra: str


def verdict(summary: Mapping[str, Any]) -> Verdict:
    """Read `summary["slo"]`; without a target the sentence gives throughput and p99 TTFT."""
    slo = section(summary, "slo")
    targets = tuple(_target(k, t) for k, t in section(slo, "targets").items() if isinstance(t, Mapping))
    rate = section(summary, "throughput").get("requests_per_s")
    p99 = section(summary, "ttft_ms").get("p99")
    headline = f"{number(rate, 3)} requests/s with a p99 TTFT of {_ms(p99)}"
    if not targets:
        return Verdict("none", f"No SLO set: {headline}", (), "")
    extra = []
    if is_number(slo.get("attainment")):
        extra.append(f"{percent(slo['attainment'])} of requests meet every per-request bound")
    if is_number(slo.get("goodput_per_s")):
        extra.append(f"goodput {number(slo['goodput_per_s'], 3)} requests/s of {number(rate, 3)}")
    counts = section(summary, "requests")
    rejected = counts.get("rejected")
    lost = f"; {number(rejected)} of {number(counts.get('arrived'))} requests were rejected" if rejected else ""
    missed = [t for t in targets if not t.met]
    if missed:
        worst = "; ".join(f"{t.label} is {t.value} against {t.limit}, {t.margin}" for t in missed)
        return Verdict("missed", f"SLO missed: {worst}{lost}", targets, "; ".join(extra))
    near = "; ".join(f"{t.label} is {t.value}, {t.margin}" for t in targets)
    return Verdict("met", f"SLO met: {near}{lost}", targets, "; ".join(extra))


def _target(key: str, target: Mapping[str, Any]) -> Target:
    limit, value = target.get("target_ms"), target.get("value_ms")
    met = target.get("met") is True
    if limit is None or value is None or not (is_number(limit) and is_number(value)) or limit <= 0:
        return Target(slo_label(key), _ms(limit), _ms(value), met, "no value to compare", 0.0)
    change = value / limit - 1.0
    margin = "exactly at the limit"
    if change > 0:
        margin = f"{_times(value / limit)} over the limit" if change < 1 else f"{number(value / limit, 2)} × the limit"
    elif change < 0:
        margin = f"{percent(-change)} below the limit"
    if not met and change <= 0:
        margin += " for those that were served"
    return Target(slo_label(key), _ms(limit), _ms(value), met, margin, max(0.0, min(100.0, 50.0 * value / limit)))


def _times(ratio: float) -> str:
    return percent(ratio - 1.0)


def _ms(value: Any) -> str:
    return seconds(value / 1e3) if is_number(value) else seconds(None)
