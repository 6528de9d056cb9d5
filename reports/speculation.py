"""What speculation came to: the section of a run's report."""

from reports.document import Section
from reports.figures.base import TimeAxis
from reports.load import RunData, section
from reports.tables import TextTable
from reports.text import binary_bytes, percent, seconds


def speculation_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """Drafts, what became of them and what they took; None without speculation."""
    table = speculation_table(run)
    return Section("speculation", "Speculative decoding", [], [table]) if table else None


def speculation_table(run: RunData) -> TextTable | None:
    """Drafted and accepted tokens, the drafter's memory and time; None without speculation."""
    did = section(run.summary, "speculation")
    if not did:
        return None
    who = f"{did['method']}, {did['tokens']} tokens" + (f" by {did['model']}" if did["model"] else "")
    whole = sum(float(value) for value in run.summary.get("time", {}).values())
    rows = [
        ("drafts", who, "per sequence and step"),
        ("verifications", f"{did['verified']:,}", "verifying steps of sequences"),
        ("tokens drafted", f"{did['drafted']:,}", "for them"),
        ("tokens accepted", _share(did["accepted"], did["acceptance_rate"]), "right, and so were all before them"),
        ("tokens wasted", _share(did["wasted"], did["wasted_share"]), "wrong, or after one that was"),
        (
            "accepted length",
            _number(did["accepted_length"]),
            "tokens that a verification yields, its own included",
        ),
        ("tokens per step", _number(did["tokens_per_step"]), "the same, less what came past the end of an answer"),
    ]
    if did["model"]:
        share = percent(did["draft_s"] / whole if whole else 0.0)
        rows += [
            ("drafting", f"{seconds(did['draft_s'])} ({share})", "in replica-seconds and as a share of all"),
            ("the drafter's weights", binary_bytes(did["weight_bytes"]), "on each GPU"),
            ("its KV per token", binary_bytes(did["kv_bytes_per_token"]), "in every block, on all GPUs of a replica"),
        ]
    read = "Steps verify drafted tokens: the more of them are right, the fewer steps an answer takes."
    return TextTable("drafted", "Drafted tokens", read, ("What", "Value", "Meaning"), rows, (), [])


def _share(count: int, share: float | None) -> str:
    return f"{count:,}" if share is None else f"{count:,} ({percent(share)})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
