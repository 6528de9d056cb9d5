"""Prefill and decode on different instances: their section in a run's report."""

from reports.document import Section
from reports.figures.base import TimeAxis
from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import binary_bytes, number, percent, seconds

WAITS = ("memory_wait_ms", "transfer_wait_ms", "place_wait_ms", "second_token_ms", "transfer_ms")
"""In the order in which a request meets them; the last two are sums and spans of what came before."""


def disaggregation_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """The section of the page; None where every replica computes prompts and decodes."""
    waits = waits_table(run)
    return Section("disaggregation", "Prefill to decode", [], [waits, pools_table(run)]) if waits else None


def waits_table(run: RunData) -> TextTable | None:
    """What crossed between instances, and what requests waited for; None without two pools."""
    did = section(run.summary, "disaggregation")
    if not did:
        return None
    said = section(section(run.summary, "definitions"), "disaggregation")

    def row(key: str, value: str) -> tuple[str, str, str]:
        return str(said[key]["label"]), value, str(said[key]["definition"])

    rows = [row("requests", number(did["requests"])), row("bytes", binary_bytes(did["bytes"]))]
    rows.append(row("reused_bytes", binary_bytes(did["reused_bytes"])))
    if did["requests"]:
        rows += [row(key, f"mean {_ms(did[key]['mean'])}, P99 {_ms(did[key]['p99'])}") for key in WAITS]
    rows.append(row("preemptions", number(did["preemptions"])))
    how = {"whole": "when the prompt is complete", "chunk": "after each chunk", "layer": "while layers are computed"}
    read = f"KV leaves {how[did['transfer']]}, over {did['link']}. Times are of the requests that were handed over."
    return TextTable("handoffs", "From prefill to decode instances", read, ("What", "Value", "Meaning"), rows, ())


def pools_table(run: RunData) -> TextTable:
    """How busy and how full the two pools were."""
    pools = section(section(run.summary, "disaggregation"), "pools")
    said = section(section(run.summary, "definitions"), "disaggregation")
    keys = ("busy", "waiting", "hbm_peak")
    rows = []
    for name, pool in pools.items():
        count = pool["replicas"]
        which = f"{name}, {count} instance{'s' if count > 1 else ''}"
        rows.append((which, *(percent(pool[key]) for key in keys)))
    terms = [(str(said[key]["label"]), str(said[key]["definition"])) for key in keys]
    columns = ("Pool", *(label for label, _ in terms))
    read = (
        "Prefill instances wait where KV of computed prompts fills them: the decode pool has no memory for it, or the "
        "link is slow. Decode instances wait for the link alone. A busy pool beside one that does little is too small."
    )
    return TextTable("pools", "The two pools", read, columns, rows, range(1, len(columns)), terms)


def _ms(value: float) -> str:
    return seconds(value / 1e3)
