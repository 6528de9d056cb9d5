"""The tables of a comparison: verdicts, what changed, tiers, what policies within sequences did."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports.compare_data import Variant, changed, of_whole_runs
from reports.load import section
from reports.tables import TextTable, definition
from reports.text import NO_VALUE, binary_bytes, is_number, number, percent, seconds, slo_label, tier_label
from reports.verdict import verdict

TIER_FIELDS = ("capacity_bytes", "stored_bytes", "loaded_bytes", "evicted_bytes", "never_loaded_bytes")


def verdict_table(variants: Sequence[Variant]) -> TextTable:
    """Each variant against its SLO."""
    keys = list(dict.fromkeys(key for one in variants for key in one.run.slo_targets))
    rows = []
    for one in variants:
        slo, requests = section(one.run.summary, "slo"), section(one.run.summary, "requests")
        state = {"met": "met", "missed": "missed", "none": "no SLO"}[verdict(one.run.summary).state]
        cells = [_target(one, key) for key in keys]
        rejected = number(requests.get("rejected", 0))
        rate = section(one.run.summary, "throughput").get("requests_per_s")
        good = (percent(slo.get("attainment")), number(slo.get("goodput_per_s"), 3))
        rows.append((one.name, state, *cells, *good, number(rate, 3), rejected))
    columns = (
        "Variant",
        "SLO",
        *(slo_label(key) for key in keys),
        "Requests in time",
        "Goodput, req/s",
        "Throughput, req/s",
        "Rejected",
    )
    read = "Values with their limits; ✕ marks those that are missed. Of several seeds: the first one." + of_whole_runs(
        variants
    )
    return TextTable("verdicts", "Verdict by variant", read, columns, rows, range(2, len(columns)))


def _target(one: Variant, key: str) -> str:
    target = one.run.slo_targets.get(key)
    if target is None:
        return NO_VALUE
    value, limit = target.get("value_ms"), target.get("target_ms")
    mark = "" if target.get("met") is True else "✕ "
    return f"{mark}{_ms(value)} of {_ms(limit)}"


def _ms(value: Any) -> str:
    return seconds(value / 1e3) if is_number(value) else NO_VALUE


def changed_table(variants: Sequence[Variant]) -> TextTable:
    """What differs between the scenarios."""
    rows = [(path, *(value or "(none)" for value in found)) for path, found in changed(variants)]
    rows = rows or [("nothing", *("" for _ in variants))]
    read = "Every setting of the resolved scenarios, defaults included, that is not the same in all of them."
    return TextTable("changed", "What is different", read, ("Setting", *(one.name for one in variants)), rows, ())


def tiers_table(variants: Sequence[Variant]) -> TextTable:
    """What every tier held and moved in each variant."""
    tiers = list(dict.fromkeys(tier for one in variants for tier in one.run.tiers))
    rows = []
    terms: dict[str, str] = {"Prompt tokens reused": "Prompt tokens whose KV came from the tier / all prompt tokens."}
    for tier in tiers:
        hits = []
        for one in variants:
            prefix = section(one.run.summary, "prefix")
            asked, found = prefix.get("input_tokens"), section(prefix, "hit_tokens").get(tier, 0)
            hits.append(percent(found / asked) if is_number(asked) and asked else NO_VALUE)
        rows.append((f"{tier_label(tier)}: Prompt tokens reused", *hits))
        for key in TIER_FIELDS:
            field = definition(variants[0].run.summary, "tiers", key)
            label = str(field.get("label") or key)
            terms[label] = str(field.get("definition") or "")
            found_bytes = [section(section(one.run.summary, "tiers"), tier).get(key) for one in variants]
            if any(found_bytes):
                rows.append((f"{tier_label(tier)}: {label}", *(binary_bytes(size) for size in found_bytes)))
    columns = ("Field", *(one.name for one in variants))
    read = "Bytes of KV over the run, summed over all tiers of a name." + of_whole_runs(variants)
    return TextTable("tiers", "Tiers", read, columns, rows, range(1, len(columns)), list(terms.items()))


def within_tables(variants: Sequence[Variant]) -> list[TextTable]:
    """Attention coverage and bytes of policies within sequences; no table where no variant has any."""
    did = [section(one.run.summary, "within") for one in variants]
    if not any(did):
        return []
    names = list(dict.fromkeys(name for one in did for name in section(one, "coverage")))

    def cells(read: Any) -> list[str]:
        return [read(one) if one else NO_VALUE for one in did]

    rows = [
        ("Policies", *cells(lambda one: ", ".join(str(policy["name"]) for policy in one["policies"]))),
        ("Moved toward the GPUs", *cells(lambda one: binary_bytes(one["h2d_bytes"]))),
        ("Moved away from them", *cells(lambda one: binary_bytes(one["d2h_bytes"]))),
        ("Waiting for that", *cells(lambda one: seconds(one["move_wait_s"]))),
        *((f"Attention covered by {name}", *cells(lambda one, name=name: _share(one, name))) for name in names),
    ]
    columns = ("Field", *(one.name for one in variants))
    read = (
        "What policies did with the KV of sequences. Coverage is the attention mass of what is kept, in a layer half "
        "way up: quality is not simulated, so a faster variant that covers less is not simply better."
    )
    return [TextTable("within", "Within a sequence", read, columns, rows, range(1, len(columns)))]


def _share(did: Mapping[str, Any], name: str) -> str:
    return percent(section(did, "coverage").get(name))
