"""A run's summary on the console: latencies and metrics, its tiers, its links, where the replicas' time went.

Numbers and names are spelled by `reports.text`, so the console and the report say the same. A column or a row is left
out only if it is 0 throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvsim.cli._print import Column, line, table
from reports.provenance import trust_line
from reports.text import (
    METRIC_LABELS,
    NBSP,
    binary_bytes,
    link_label,
    metric_value,
    number,
    part_label,
    percent,
    rate,
    seconds,
    tier_label,
)

LATENCIES = ("ttft", "tpot", "itl", "e2e", "queue")
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
TIER_COLUMNS = ("capacity_bytes", "peak_bytes", "stored_bytes", "loaded_bytes", "evicted_bytes", "never_loaded_bytes")
MORE_TIER_COLUMNS = ("moved_bytes", "passed_bytes", "expired_blocks", "refused_bytes", "prefetched_bytes")
"""Shown where any tier has some."""

MOST_ROUNDS = 12
"""Rounds of a closed loop in its line."""

Row = tuple[str, ...]
"""Cells of a row; missing ones at its end are empty."""


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print `summary` (the contents of summary.json)."""
    right = [Column(name, right=True) for name in ("mean/value", *STATISTICS[1:])]
    rows = [*(_latency(summary, name) for name in LATENCIES), *_metrics(summary["metrics"])]
    table(["metric", "unit", *right], rows)
    _print_tiers(summary)
    if summary["links"]:
        columns = [Column(name, right=True) for name in ("each", "moved", "busy", "queue, p99")]
        table(["link", *columns], [_link(name, link) for name, link in summary["links"].items()])
    if "uncertainty" in summary:
        _print_bands(summary)
    for name in ("ttft", "e2e"):
        if summary["attribution"]:
            line(_parts(summary, name))
    line(_time(summary["time"]))
    line(_split(summary))
    line(_queue(summary["queue"]))
    if "response_cache" in summary:
        line(_responses(summary["response_cache"]))
    if "metadata_index" in summary:
        line(_index(summary["metadata_index"]))
    if "within" in summary:
        line(_within(summary["within"]))
    if "priorities" in summary:
        line(_priorities(summary["priorities"]))
    turns = _turns(summary["prefix"])
    if turns:
        line(turns)
    if "rounds" in summary:
        line(_rounds(summary["rounds"]))
    line(_plain(trust_line(summary)).removesuffix("."))


def _print_bands(summary: Mapping[str, Any]) -> None:
    """Every metric with its band over the machines that the hardware values allow."""
    about = summary["uncertainty"]
    columns = [Column(name, right=True) for name in ("value", "p5", "p95")]
    rows = []
    for metric in summary["metrics"]:
        unit = str(metric["unit"])
        band = metric["band"] or (None, None)
        cells = [metric_value(value, unit)[0] for value in (metric["value"], *band)]
        rows.append((str(metric["label"]), metric_value(metric["value"], unit)[1], *cells))
    title = f"bands over {about['runs']} machines drawn from the intervals of the hardware values"
    table(["metric", "unit", *columns], rows, title=title)
    if about["outside"]:
        line(f"outside their own bands, as they jump where machines differ little: {'; '.join(about['outside'])}")
    if about["failed"]:
        line(f"{about['failed']} drawn machines could not run the scenario")


def _latency(summary: Mapping[str, Any], name: str) -> Row:
    return (METRIC_LABELS[name], "ms", *(number(summary[f"{name}_ms"][s]) for s in STATISTICS))


def _metrics(metrics: list[Mapping[str, Any]]) -> list[Row]:
    above = tuple(f"{name}_" for name in LATENCIES)  # those have rows of their own
    shown = [m for m in metrics if not str(m["key"]).startswith(above)]
    pairs = [(str(m["label"]), metric_value(m["value"], str(m["unit"]))) for m in shown]
    return [(label, unit, value) for label, (value, unit) in pairs]


def _print_tiers(summary: Mapping[str, Any]) -> None:
    """One row per tier, and one for the prompt tokens that no tier had."""
    tiers, prefix = summary["tiers"], summary["prefix"]
    hits: Mapping[str, int] = prefix["hit_tokens"]
    fields = summary["definitions"]["tiers"]
    keys = [*TIER_COLUMNS, *(key for key in MORE_TIER_COLUMNS if any(tier[key] for tier in tiers.values()))]
    rows = [
        (tier_label(name), number(hits.get(name, 0)), *(_amount(tier[key], fields[key]["unit"]) for key in keys))
        for name, tier in tiers.items()
    ]
    rows.append(("computed", number(prefix["input_tokens"] - sum(hits.values()))))
    labels = ("prompt tokens", *(str(fields[key]["label"]).lower() for key in keys))
    table(["tier", *(Column(label, right=True) for label in labels)], rows)


def _amount(value: float, unit: str) -> str:
    return _plain(binary_bytes(value)) if unit == "B" else number(value)


def _link(name: str, link: Mapping[str, Any]) -> Row:
    """One direction of a link, or a bandwidth that links share: what moved, how busy it was, how long its queue."""
    queue = _plain(seconds(link["queue_p99_ms"] / 1e3)) if "queue_p99_ms" in link else ""
    each = _plain(rate(link["capacity_bytes_per_s"] / link["count"])) if "capacity_bytes_per_s" in link else ""
    many = f"{link_label(name)} ({link['count']})" if link["count"] > 1 else link_label(name)
    return (many, each, _plain(binary_bytes(link["bytes"])), _plain(percent(link["utilization"])), queue)


def _parts(summary: Mapping[str, Any], name: str) -> str:
    """What mean TTFT or E2E is made of, and that of the slowest requests; parts below 0.5 % are left out."""
    groups = summary["attribution"][f"{name}_ms"]
    said = []
    for group, label in (("all", "mean"), ("slowest", "slowest 1 %")):
        whole, parts = groups[group]["mean"], groups[group]["parts"]
        shares = [f"{_plain(percent(v / whole))} {part_label(summary, k)}" for k, v in parts.items() if v > whole / 200]
        said.append(f"{label} {_plain(seconds(whole / 1e3))} = {', '.join(shares)}")
    return f"{METRIC_LABELS[name]}: {'; '.join(said)}"


def _time(time: Mapping[str, float]) -> str:
    whole = sum(time.values())
    names = {key: key.removesuffix("_s").replace("_", " ") for key in time}
    parts = [f"{_plain(percent(spent / whole))} {names[key]}" for key, spent in time.items() if whole and spent]
    return f"replica time: {', '.join(parts)}"


def _split(summary: Mapping[str, Any]) -> str:
    """What bounded the replicas' time."""
    split, fields = summary["replica_time"], summary["definitions"]["replica_time"]
    spent = {key: split[key] for key in fields if split.get(key)}
    whole = sum(spent.values())
    parts = [f"{_plain(percent(seconds / whole))} {fields[key]['label']}" for key, seconds in spent.items()]
    return f"replica time by what bounds it: {', '.join(parts)}"


def _responses(did: Mapping[str, Any]) -> str:
    """Who never reached a GPU, and how the others fared: latencies above count both."""
    others = [
        f"{name} {seconds(did[key] / 1e3)}"
        for name, key in (("TTFT", "gpu_ttft_mean_ms"), ("TPOT", "gpu_tpot_mean_ms"))
        if did[key] is not None
    ]
    names = " and ".join(str(cache["name"]) for cache in did["caches"])
    text = f"answered by {names}: {number(did['hits'])} requests, {percent(did['hit_ratio'])} of the finished"
    return _plain(text + (f"; the others in the mean: {', '.join(others)}" if others else ""))


def _index(did: Mapping[str, Any]) -> str:
    """How long requests waited for the index of prefixes."""
    mean, tail = seconds(did["lookup_mean_ms"] / 1e3), seconds(did["lookup_p99_ms"] / 1e3)
    return _plain(f"lookups of prefixes: mean {mean}, p99 {tail}; their server is {percent(did['utilization'])} busy")


def _within(did: Mapping[str, Any]) -> str:
    """What policies within a sequence moved, and what attention they cover."""
    names = " + ".join(str(policy["name"]) for policy in did["policies"])
    parts = []
    if did["h2d_bytes"] or did["d2h_bytes"]:
        there, back = binary_bytes(did["h2d_bytes"]), binary_bytes(did["d2h_bytes"])
        parts.append(f"{there} toward the GPUs and {back} away in steps, which waited {seconds(did['move_wait_s'])}")
    parts += [f"{name} covers {percent(share)} of the attention mass" for name, share in did["coverage"].items()]
    if did.get("importance"):
        parts.append("importance: " + str(did["importance"]).partition(";")[0].removeprefix("token importance: "))
    return f"within a sequence, {names}: {'; '.join(parts) or 'nothing moved'}"


def _priorities(found: list[Mapping[str, Any]]) -> str:
    """Mean TTFT of each priority."""
    each = [(str(one["priority"]), one["ttft_ms"]["mean"]) for one in found]
    parts = [f"{name}: {_plain(seconds(mean / 1e3))}" for name, mean in each if mean is not None]
    return f"TTFT by priority, mean: {', '.join(parts)}"


def _queue(queue: Mapping[str, Mapping[str, float]]) -> str:
    """Requests that wait and run at a time."""
    parts = [f"{number(level['mean'])} {name} (at most {number(level['max'])})" for name, level in queue.items()]
    return f"requests at a time, mean: {', '.join(parts)}"


def _turns(prefix: Mapping[str, Any]) -> str:
    """Hit ratio by turn of the conversation; empty where there are no conversations."""
    parts = [
        f"{turn['turn']}{'+' if turn['and_later'] else ''}: "
        + _plain(percent(sum(turn["hit_tokens"].values()) / max(1, turn["input_tokens"])))
        for turn in prefix.get("turns", ())
    ]
    return f"prefix hits by turn of the conversation: {', '.join(parts)}" if parts else ""


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Mean TTFT by round, the first MOST_ROUNDS of them and the last."""
    shown = [*rounds[: MOST_ROUNDS - 1], rounds[-1]] if len(rounds) > MOST_ROUNDS else rounds
    parts = [
        f"{row['round']}{'+' if row['and_later'] else ''}: {_plain(seconds(row['ttft_ms']['mean'] / 1e3))}"
        for row in shown
        if row["requests"]
    ]
    return f"mean TTFT by round: {', '.join(parts)}"


def _plain(text: str) -> str:
    return text.replace(NBSP, " ")


def bound_line(bound: Mapping[str, Any]) -> str:
    """The regret of a run (`bound` of its summary) in one line."""
    regret = "no regret" if bound["regret"] is None else f"regret {percent(bound['regret'])}"
    return (
        f"load + compute: {seconds(bound['load_recompute_s'])}, of which {seconds(bound['load_s'])} to load; "
        f"no policy could need less than {seconds(bound['lower_bound_s'])}: {regret} (bound without queueing)"
    )
