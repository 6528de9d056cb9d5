"""What limits this run, in one paragraph: replicas' time, the SLO's worst target, links, tiers, and reruns if any."""

from collections.abc import Mapping
from typing import Any

from reports.explained import sentence
from reports.figures.parts import WORDS
from reports.load import RunData, section
from reports.text import binary_bytes, is_number, link_label, part_label, percent, seconds, slo_label, tier_label
from sim.time_split import PIPELINED

ON = {
    "compute_s": "arithmetic, above all for prompts",
    "hbm_s": "HBM: reading weights and KV",
    "link_wait_s": "links: KV that moves, and GPUs exchanging",
    "launch_s": "launches and fixed times of kernels, and the host",
}
HOW = (
    "What would move it: “kvsim run SCENARIO --explain” runs the scenario again with each resource halved and doubled, "
    "and this report then shows which of them matter."
)
BUSY = 0.7
"""Utilisation from which on a link is called near its limit."""


def limits(run: RunData) -> list[str]:
    """Paragraphs: what limits the run; and how to find out what would move it, where that is not known."""
    said = [_replicas(run), _tail(run), _links(run), _tiers(run)]
    if run.explain is not None:
        said.append(sentence(run.explain, metric_key(run)))
    return [" ".join(text for text in said if text), *([] if run.explain is not None else [HOW])]


def metric_key(run: RunData) -> str:
    """The metric of a study that stands for the target that is missed most, or met least."""
    metric, _, _ = worst_target(run).partition("_")
    return "tpot_p95_ms" if metric in ("tpot", "itl") else "ttft_p99_ms"


def worst_target(run: RunData) -> str:
    """Key of the SLO target with the largest value over limit; ttft_p99 without an SLO."""

    def over(key: str) -> float:
        target = run.slo_targets[key]
        value, limit = target.get("value_ms"), target.get("target_ms")
        return value / limit if is_number(value) and is_number(limit) and limit > 0 else 0.0

    return max(run.slo_targets, key=over, default="ttft_p99")


def _replicas(run: RunData) -> str:
    split = section(run.summary, "replica_time")
    spent = {part: float(split[part]) for part in PIPELINED if is_number(split.get(part))}
    whole = sum(spent.values())
    idle = spent.pop("idle_s", 0.0) + spent.pop("bubble_s", 0.0)
    if not whole or not spent or whole <= idle:
        return ""
    most = max(spent, key=lambda part: spent[part])
    return (
        f"Replicas were busy {percent((whole - idle) / whole)} of the time, {percent(spent[most] / (whole - idle))} of "
        f"that with {ON[most]}."
    )


def _tail(run: RunData) -> str:
    key = worst_target(run)
    metric = key.partition("_")[0]
    span = "ttft" if metric in ("ttft", "queue", "load", "prefill") else "e2e"
    slowest = section(section(section(run.summary, "attribution"), f"{span}_ms"), "slowest")
    parts: Mapping[str, Any] = section(slowest, "parts")
    whole = sum(value for value in parts.values() if is_number(value))
    if not whole:
        return ""
    first, second = sorted(parts, key=lambda part: -parts[part])[:2]
    also = (
        f", {percent(parts[second] / whole)} {part_label(run.summary, second)}" if parts[second] > 0.1 * whole else ""
    )
    target = run.slo_targets.get(key)
    said = ""
    if target is not None:
        state = "meets its target" if target.get("met") else "misses its target"
        said = f"{slo_label(key)} {state} ({_ms(target.get('value_ms'))} of {_ms(target.get('target_ms'))}). "
    return (
        f"{said}The slowest 1 % of requests by {WORDS[span]} spend {percent(parts[first] / whole)} of it "
        f"{_doing(part_label(run.summary, first))}{also}."
    )


def _doing(label: str) -> str:
    label = label.replace(" its ", " their ")
    return label if label.split(" ", maxsplit=1)[0].endswith("ing") or label.startswith("in ") else f"on {label}"


def _links(run: RunData) -> str:
    busy = {n: v["utilization"] for n, v in section(run.summary, "links").items() if is_number(v.get("utilization"))}
    if not busy:
        return ""
    top = max(busy, key=lambda name: busy[name])
    if busy[top] >= BUSY:
        return f"{link_label(top)} is busy {percent(busy[top])} of the time: near its limit."
    return f"No link is near its limit: the busiest, {link_label(top)}, is in use {percent(busy[top])} of the time."


def _tiers(run: RunData) -> str:
    tiers, prefix = section(run.summary, "tiers"), section(run.summary, "prefix")
    said = []
    for name in run.tiers[1:]:
        tier = section(tiers, name)
        peak, capacity, evicted = (tier.get(key) for key in ("peak_bytes", "capacity_bytes", "evicted_bytes"))
        if not (is_number(peak) and is_number(capacity) and capacity):
            continue
        if evicted:
            said.append(f"{tier_label(name)} was full and evicted {binary_bytes(evicted)}")
        else:
            said.append(f"{tier_label(name)} never filled (peak {percent(peak / capacity)})")
    again, total = prefix.get("computed_again_tokens"), prefix.get("input_tokens")
    text = f"{'; '.join(said)}." if said else ""
    if is_number(again) and is_number(total) and total:
        text += (
            f" {percent(again / total)} of prompt tokens had to be computed again because no tier still had what an "
            "earlier prompt had computed."
            if again
            else " No prompt token was computed that an earlier prompt had computed before."
        )
    return text.strip()


def _ms(value: Any) -> str:
    return seconds(value / 1e3) if is_number(value) else seconds(None)
