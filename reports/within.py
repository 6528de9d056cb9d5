"""What policies within a sequence did: the table of their section in a run's report."""

from collections.abc import Mapping
from typing import Any

from reports.document import Section
from reports.figures.base import TimeAxis
from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import binary_bytes, percent, seconds


def within_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """The section of the page; None without such policies."""
    table = within_table(run)
    return Section("within", "Within a sequence", [], [table]) if table else None


def within_table(run: RunData) -> TextTable | None:
    """Policies, the bytes that steps moved, what they waited for, attention coverage; None without such policies."""
    did = section(run.summary, "within")
    if not did:
        return None
    steps = run.summary.get("time", {})
    whole = sum(float(value) for value in steps.values())
    rows = [(_named(policy), str(policy["family"]).replace("sequence_", ""), "policy") for policy in did["policies"]]
    rows += [
        ("moved toward the GPUs in steps", binary_bytes(did["h2d_bytes"]), "KV and weights that layers asked for"),
        ("moved away from them", binary_bytes(did["d2h_bytes"]), "copies of what was computed"),
        (
            "waiting for that",
            f"{seconds(did['move_wait_s'])} ({percent(did['move_wait_s'] / whole if whole else 0.0)})",
            "layers that could not begin, in replica-seconds and as a share of all",
        ),
    ]
    about = "attention mass of what is kept at the end of a request, in a layer half way up; not the quality of answers"
    rows += [(f"attention covered by {name}", percent(share), about) for name, share in did["coverage"].items()]
    if "host_kv" in run.summary:
        held = run.summary["host_kv"]
        rows.append(
            ("host memory, peak", binary_bytes(held["peak_bytes"]), "KV of sequences, in the replica with the most")
        )
    if did.get("importance"):
        kind, _, about = str(did["importance"]).partition(";")
        rows.append(("token importance", kind.removeprefix("token importance: "), about.strip()))
    read = "Formats, budgets, selection and offload of each sequence's own KV, as their policies plan them per layer."
    terms = [(f"assumed ({i})", note) for i, note in enumerate(did["assumptions"], start=1)]
    columns = ("What", "Value", "Meaning")
    title = "What policies did with the KV of sequences"
    return TextTable("within-policies", title, read, columns, rows, (), terms, "What is assumed")


def _named(policy: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in policy.items() if key not in ("name", "family"))
    return f"{policy['name']} ({options})" if options else str(policy["name"])
