"""The tables of a run's report: its tiers, its links, its replicas' time, its prefetches.

Numbers come from summary.json and the transfer table, and so do their definitions (`summary["definitions"]`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.figures.links import link_order, of_link
from reports.load import RunData, section
from reports.text import (
    METRIC_LABELS,
    NO_VALUE,
    binary_bytes,
    is_number,
    link_label,
    number,
    part_label,
    percent,
    rate,
    seconds,
    tier_label,
)
from sim.attribution_summary import SPANS

REASONS = (("load", "Loads"), ("prefetch", "Prefetches"), ("store", "Stores"), ("handoff", "To decode"))
SHARED = {"private": "one per replica", "node": "one per node", "cluster": "one for all"}


@dataclass(frozen=True)
class TextTable:
    """A table of the page. The first cell of a row names it; `numbers` are the columns that align right.

    terms    (column or row, definition) pairs to be read below the table
    about    what they are, where they are not what rows or columns mean
    """

    key: str
    title: str
    read: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int]
    terms: Sequence[tuple[str, str]] = ()
    about: str = ""


@dataclass(frozen=True)
class DataTable:
    """A table of many rows that the reader sorts and filters. The first cell of a row names it.

    values    of every cell what it is sorted and filtered by: a number, or its text
    state     of every row "met", "missed", "failed" or "" (a mark at its first cell)
    """

    key: str
    title: str
    read: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    values: Sequence[Sequence[float | str]]
    numbers: Sequence[int]
    state: Sequence[str] = ()
    terms: Sequence[tuple[str, str]] = ()


def definition(summary: Mapping[str, Any], group: str, key: str) -> Mapping[str, Any]:
    """`{label, unit, definition}` of a field, empty where the summary has none."""
    return section(section(section(summary, "definitions"), group), key)


def time_table(run: RunData) -> TextTable:
    """Where the time of all replicas went."""
    spent = section(run.summary, "time")
    whole = sum(v for v in spent.values() if is_number(v))
    rows = []
    for key, value in spent.items():
        field = definition(run.summary, "time", key)
        share = percent(value / whole) if whole else NO_VALUE
        rows.append((str(field.get("label") or key), share, seconds(value), str(field.get("definition") or "")))
    rows.append(("all", percent(1.0) if whole else NO_VALUE, seconds(whole), "From the start to the last finish."))
    many = f"the {run.replicas} replicas" if run.replicas > 1 else "the replica"
    read = f"Time of {many}, added up, by what they did; every second is in one row."
    columns = ("Replica time", "Share", "Time", "Definition")
    return TextTable("replica-time", "Where the replicas' time went", read, columns, rows, (1, 2))


def part_tables(run: RunData) -> list[TextTable]:
    """Mean parts of TTFT and E2E with their definitions; no table where no request finished."""
    spans = section(run.summary, "attribution")
    groups = [(name, section(section(spans, f"{name}_ms"), group)) for name in SPANS for group in ("all", "slowest")]
    if not spans:
        return []
    rows = []
    for part in section(groups[-1][1], "parts"):
        found = [section(group, "parts").get(part) for _, group in groups]
        if any(found):
            field = definition(run.summary, "attribution", "load" if part.startswith("load_") else part)
            cells = (seconds(value / 1e3) if is_number(value) else NO_VALUE for value in found)
            rows.append((part_label(run.summary, part), *cells, str(field.get("definition") or "")))
    total = (seconds(group["mean"] / 1e3) for _, group in groups)
    rows.append(("all", *total, "The mean that these parts add up to."))
    columns = (
        "Part",
        *(f"{METRIC_LABELS[name]}{of}" for name in SPANS for of in (", mean", ", slowest 1 %")),
        "Definition",
    )
    read = "Mean time of all finished requests, and of the 1 % with the longest TTFT or E2E, by what they were doing."
    return [TextTable("request-parts", "Where the requests' time went", read, columns, rows, (1, 2, 3, 4))]


def priority_tables(run: RunData) -> list[TextTable]:
    """Latencies by priority; no table where requests have none."""
    found = run.summary.get("priorities") or []
    shown = (("ttft", "mean"), ("ttft", "p99"), ("e2e", "mean"), ("e2e", "p99"), ("queue", "mean"))
    rows = []
    for each in found:
        values = (section(each, f"{name}_ms").get(statistic) for name, statistic in shown)
        cells = (seconds(value / 1e3) if is_number(value) else NO_VALUE for value in values)
        rows.append((str(each["priority"]), number(each["requests"]), number(each["preemptions"]), *cells))
    labels = (f"{METRIC_LABELS[name]}, {statistic}" for name, statistic in shown)
    columns = ("Priority", "Requests", "Preemptions", *labels)
    read = "Requests by priority; lower ones are served first if the engine schedules by it."
    numbers = tuple(range(1, len(columns)))
    return [TextTable("priorities", "Latency by priority", read, columns, rows, numbers)] if rows else []


def tier_table(run: RunData) -> TextTable:
    """One column per tier, one row per field; what prefetches brought has a table of its own."""
    tiers = section(run.summary, "tiers")
    names = [name for name in run.tiers if name in tiers]
    prefix = section(run.summary, "prefix")
    hits, prompt = section(prefix, "hit_tokens"), prefix.get("input_tokens")
    reused = [_share_of(number(hits.get(name, 0)), hits.get(name, 0), prompt) for name in names]
    rows = [
        ("Made of", *(_made_of(run, name) for name in names)),
        ("Instances", *(_instances(run, name) for name in names)),
        ("Policies", *(_policies(run, name) for name in names)),
        ("Prompt tokens reused", *reused),
    ]
    terms = [
        ("Made of", "Memory or device behind the tier; an exclusive tier gives up what is loaded from it."),
        ("Instances", "How many there are, and who shares one."),
        ("Policies", "Eviction; admission; offload to the tiers behind."),
        ("Prompt tokens reused", "Prompt tokens whose KV came from the tier / prompt tokens of finished requests."),
    ]
    for key in dict.fromkeys(key for name in names for key in tiers[name]):
        if key != "count" and not key.startswith("prefetch"):
            field = definition(run.summary, "tiers", key)
            label, unit = str(field.get("label") or key), str(field.get("unit") or "")
            rows.append((label, *(_tier_cell(key, unit, tiers[name]) for name in names)))
            terms.append((label, str(field.get("definition") or "")))
    read = "Bytes of KV, summed over all tiers of a name; never loaded as a share of what was stored."
    columns = ("Field", *(tier_label(name) for name in names))
    return TextTable("tier-accounts", "Tiers", read, columns, rows, range(1, 1 + len(names)), terms)


def _tier_cell(key: str, unit: str, tier: Mapping[str, Any]) -> str:
    value = tier.get(key)
    text = binary_bytes(value) if unit.startswith("B") else number(value)
    return _share_of(text, value, tier.get("stored_bytes")) if key == "never_loaded_bytes" else text


def _share_of(text: str, part: Any, whole: Any) -> str:
    return f"{text} ({percent(part / whole)})" if is_number(part) and is_number(whole) and whole else text


def _scenario_tier(run: RunData, name: str) -> Mapping[str, Any]:
    tiers = run.scenario.get("tiers")
    found = (t for t in tiers if isinstance(t, Mapping) and t.get("name") == name) if isinstance(tiers, list) else ()
    return next(iter(found), {})


def _made_of(run: RunData, name: str) -> str:
    tier = _scenario_tier(run, name)
    what = {"hbm": "GPU memory", "dram": "host memory"}.get(name, str(tier.get("device") or name))
    return f"{what}, exclusive" if tier.get("inclusive") is False else what


def _instances(run: RunData, name: str) -> str:
    count = number(section(section(run.summary, "tiers"), name).get("count"))
    return f"{count}, {SHARED.get(str(_scenario_tier(run, name).get('shared')), '')}".strip(", ")


def _policies(run: RunData, name: str) -> str:
    own, common = _scenario_tier(run, name), section(run.scenario, "policies")
    families = ["eviction"] if name == run.tiers[0] else ["eviction", "admission"]
    if name != run.tiers[-1]:
        families.append("offload")
    chosen = (own.get(family) or common.get(family) for family in families)
    return "; ".join(str(p.get("name") if isinstance(p, Mapping) else p) for p in chosen if p)


def bound_tables(run: RunData) -> list[TextTable]:
    """The run against the least load + compute seconds of its lookups; no table where that was not asked for."""
    bound = section(run.summary, "bound")
    rows = []
    for key, field in section(section(run.summary, "definitions"), "bound").items():
        if key in bound:
            value = bound[key]
            text = percent(value) if field["unit"] == "ratio" else seconds(value)
            rows.append((str(field["label"]), text, str(field["definition"])))
    columns = ("Load and compute", "Value", "Definition")
    read = str(bound.get("definition") or "")
    return [TextTable("regret", "Against the best that could be done", read, columns, rows, (1,))] if rows else []


def link_tables(run: RunData) -> list[TextTable]:
    """One row per link and per bandwidth that links share; no table for a run without links."""
    links = section(run.summary, "links")
    if not links:
        return []
    span = run.summary.get("duration_s")
    moved = {name: _by_reason(run, name) for name in link_order(run)}
    reasons = [(key, label) for key, label in REASONS if any(m[key] for m in moved.values())]
    rows = []
    for name, link in links.items():
        count = link.get("count", 1)
        mean = link["bytes"] / count / span if is_number(span) and span else None
        of_cap = "capacity_bytes_per_s" in link
        parts = [NO_VALUE if of_cap else binary_bytes(moved.get(name, {}).get(key, 0)) for key, _ in reasons]
        of = f", of {rate(link['capacity_bytes_per_s'] / count)} each" if of_cap else ""
        queue = seconds(link["queue_p99_ms"] / 1e3) if "queue_p99_ms" in link else NO_VALUE
        cells = (number(count), binary_bytes(link["bytes"]), *parts, rate(mean), percent(link["utilization"]), queue)
        rows.append((link_label(name) + of, *cells))
    columns = ("Link", "Instances", "Moved", *(label for _, label in reasons), "Mean rate", "Utilisation", "Queue, P99")
    why = "Bytes moved for requests whose turn has come, ahead of requests, and away from the GPU."
    if any(key == "handoff" for key, _ in reasons):
        why = f"{why[:-1]}; to decode: from prefill to decode instances."
    terms = [
        *_terms(run.summary, "links", ("count", "bytes")),
        (", ".join(label for _, label in reasons), why),
        ("Mean rate", "Bytes moved / duration of the run, per instance."),
        *_terms(run.summary, "links", ("utilization", "queue_p99_ms", "capacity_bytes_per_s")),
    ]
    read = "Every direction of every link, and the bandwidths that several links share (last rows)."
    return [TextTable("link-bytes", "Bytes by link and direction", read, columns, rows, range(1, len(columns)), terms)]


def _terms(summary: Mapping[str, Any], group: str, keys: Iterable[str]) -> list[tuple[str, str]]:
    fields = (definition(summary, group, key) for key in keys)
    return [(str(field["label"]), str(field["definition"])) for field in fields if field]


def _by_reason(run: RunData, name: str) -> dict[str, float]:
    transfers = of_link(run, name)
    return {key: float(transfers["bytes"][transfers.texts["reason"].mask(key)].sum()) for key, _ in REASONS}


def prefetch_table(run: RunData) -> TextTable | None:
    """What was fetched ahead of need into each tier, and what became of it; None without a prefetch policy."""
    total = section(run.summary, "prefetch")
    if not total:
        return None
    tiers = section(run.summary, "tiers")
    rows = []
    for name in run.tiers:
        fetched, used, late = (
            tiers[name].get(key, 0) for key in ("prefetched_bytes", "prefetch_used_bytes", "prefetch_late_bytes")
        )
        if fetched:
            rows.append(_prefetch_row(f"into {tier_label(name)}", fetched, used, fetched - used, late))
    keys = ("fetched_bytes", "used_bytes", "wasted_bytes", "late_bytes")
    if len(rows) != 1:
        rows.append(_prefetch_row("all tiers", *(total[key] for key in keys)))
    columns = ("Prefetches", "Prefetched", "Used", "Wasted", "Late")
    read = f"Policy {total.get('policy')}: bytes brought nearer to the GPU before a request needed them."
    terms = _terms(run.summary, "prefetch", keys)
    return TextTable("prefetches", "What prefetches brought", read, columns, rows, range(1, 5), terms)


def _prefetch_row(name: str, fetched: float, *parts: float) -> tuple[str, ...]:
    return (name, binary_bytes(fetched), *(_share_of(binary_bytes(part), part, fetched) for part in parts))
