"""Tables about all requests: percentiles of their times, and what became of their prompts' tokens."""

from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import METRIC_LABELS, NO_VALUE, binary_bytes, is_number, number, percent, seconds, tier_label

STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")
TIMES = ("ttft", "tpot", "itl", "e2e", "queue", "load", "prefill")
LABELS = METRIC_LABELS | {"load": "loading", "prefill": "prefill"}
FIRST, AGAIN = "computed for the first time", "computed again"


def percentile_table(run: RunData) -> TextTable:
    """Mean, percentiles and maximum of every time of a request."""
    rows = []
    for name in TIMES:
        found = section(run.summary, f"{name}_ms")
        if found:
            cells = (found.get(statistic) for statistic in STATISTICS)
            rows.append((LABELS[name], *(seconds(v / 1e3) if is_number(v) else NO_VALUE for v in cells)))
    read = (
        "Over finished requests; ITL over every gap between two tokens of a request. Queue + loading + prefill = TTFT."
    )
    columns = ("Time", *STATISTICS)
    return TextTable("percentiles", "Percentiles", read, columns, rows, range(1, len(columns)))


def reuse_table(run: RunData) -> list[TextTable]:
    """What became of the tokens of all prompts; no table where the trace says nothing about prefixes."""
    prefix = section(run.summary, "prefix")
    again, computed = prefix.get("computed_again_tokens"), prefix.get("computed_tokens")
    if not (is_number(again) and is_number(computed)):
        return []
    hits = section(prefix, "hit_tokens")
    per_token = section(run.summary, "hardware").get("kv_bytes_per_token")
    behind = "Evicted from HBM, or computed by another replica, and loaded"
    parts = [
        (FIRST, computed - again, "No earlier prompt had them: no cache could have saved these."),
        (AGAIN, again, "An earlier prompt had them, but no tier that this replica looks into still did."),
    ]
    for name in run.tiers:
        if name in hits:
            first = name == run.tiers[0]
            what = "Still in the memory of the GPU." if first else f"{behind} from {tier_label(name)}."
            parts.append((f"reused from {tier_label(name)}", hits[name], what))
    total = sum(tokens for _, tokens, _ in parts)
    rows = [
        (label, number(tokens), percent(tokens / total) if total else NO_VALUE, _size(tokens, per_token), what)
        for label, tokens, what in parts
    ]
    read = (
        "Tokens of the prompts that were served, each in one row. Computed again and reused from behind HBM is thrash."
    )
    columns = ("Prompt tokens", "Tokens", "Share", "KV", "Meaning")
    return [TextTable("reuse", "What became of prompts", read, columns, rows, (1, 2, 3))]


def _size(tokens: float, per_token: object) -> str:
    return binary_bytes(tokens * per_token) if is_number(per_token) else NO_VALUE
