"""The slowest requests one by one: what each of them did, from its arrival to its last token."""

import numpy as np

from reports.figures.base import Figure
from reports.figures.parts import NOTHING, WORDS, part_bars, part_layout
from reports.load import Floats, Ints, RunData
from reports.tables import TextTable
from reports.text import number, part_label, percent, seconds, tier_label
from sim.attribution_summary import parts_of

MOST = 10
"""Requests of each kind."""
ORDER = ("gateway_wait", "queue", "prefetch_wait", "load", "layer_wait", "prefill", "recompute", "preempted")
"""Parts as a request meets them; the others, which come between and after, follow as the summary lists them."""


def slowest_rows(run: RunData, span: str) -> Ints:
    """Rows of `run.finished` with the longest `span` (ttft, e2e), the longest first."""
    order = np.argsort(-run.finished[f"{span}_s"], kind="stable")
    return np.asarray(order[:MOST], dtype=np.int64)


def waterfall_parts(run: RunData, span: str) -> tuple[list[str], Floats]:
    """Names of the parts in the order of time, and their seconds: float64[rows, parts], rows as `slowest_rows`."""
    loaded = [tier for tier in run.tiers[1:] if f"load_{tier}_s" in run.finished.numbers]
    named = parts_of(span, run.finished.numbers, [*run.tiers[:1], *loaded])
    names = sorted(named, key=_place)
    rows = slowest_rows(run, span)
    return names, np.stack([named[name][rows] for name in names], axis=1)


def slowest_figures(run: RunData) -> list[Figure]:
    """A waterfall of the slowest by TTFT, and of the slowest by E2E."""
    return [_figure(run, "ttft"), _figure(run, "e2e")]


def slowest_tables(run: RunData) -> list[TextTable]:
    """Who they are: id, when, where, lengths, what they found, what took longest."""
    return [_table(run, span) for span in WORDS] if run.finished.rows else []


def _figure(run: RunData, span: str) -> Figure:
    word = WORDS[span]
    key, title = f"slowest-{span}", f"Slowest requests by {word}"
    read = "A bar is one request, its parts in order of time; parts of a kind that came in turns are put together."
    if not run.finished.rows:
        return Figure(key, title, read, empty=NOTHING)
    names, parts = waterfall_parts(run, span)
    ids = [f"request {int(run.finished['request_id'][row])}" for row in slowest_rows(run, span)]
    total = parts.sum(axis=0)
    most = names[int(np.argmax(total))]
    share = float(total.max() / max(total.sum(), 1e-12))
    finding = f"{percent(share)} of the time of these is {part_label(run.summary, most)}."
    layout = part_layout(f"{word} (s)")
    layout |= {"height": 120 + 30 * len(ids), "bargap": 0.25}
    layout["yaxis"] |= {"type": "category", "dtick": 1}
    return Figure(key, title, read, finding, part_bars(run, ids, names, parts, "s"), layout)


def _table(run: RunData, span: str) -> TextTable:
    word, done = WORDS[span], run.finished
    names, parts = waterfall_parts(run, span)
    rows = []
    for row, own in zip(slowest_rows(run, span).tolist(), parts, strict=True):
        most = int(np.argmax(own))
        hits = [(tier, done.numbers.get(f"hit_{tier}_tokens")) for tier in run.tiers]
        found = [f"{number(int(h[row]))} {tier_label(tier)}" for tier, h in hits if h is not None and h[row]]
        rows.append(
            (
                str(int(done["request_id"][row])),
                seconds(float(done["arrival_s"][row]) - run.start_s),
                str(int(done["replica"][row])),
                number(int(done["input_tokens"][row])),
                ", ".join(found) or "none",
                number(int(done["output_tokens"][row])),
                seconds(float(done["ttft_s"][row])),
                seconds(float(done["e2e_s"][row])),
                f"{part_label(run.summary, names[most])}, {seconds(float(own[most]))}",
            )
        )
    columns = ("Request", "After", "Replica", "Prompt", "Reused", "Output", "TTFT", "E2E", "Longest part")
    read = "After: from the first arrival of the run to its own. Prompt, reused and output in tokens."
    numbers = (1, 2, 3, 5, 6, 7)
    return TextTable(f"slowest-{span}-table", f"Slowest requests by {word}", read, columns, rows, numbers)


def _place(part: str) -> int:
    kind = "load" if part.startswith("load_") else part
    return ORDER.index(kind) if kind in ORDER else len(ORDER)
