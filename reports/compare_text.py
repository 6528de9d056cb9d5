"""A comparison in words: its table cells and its headline, for console and report."""

from __future__ import annotations

from collections.abc import Sequence

from reports.text import NBSP, NO_VALUE, metric_value, number, percent, seconds
from sim.whatif.compare import LESS, MORE, NO_INTERVAL, SAME, UNSURE, Comparison, Difference, Row

COLUMNS_NOTE = (
    "Differences are to the first column, with 90 % intervals; ~ marks those that cannot be told apart from none. "
    "No interval: a total of the run, or too few independent stretches of it."
)
HEADLINE = ("ttft_mean_ms", "ttft_p99_ms", "tpot_mean_ms", "tpot_p95_ms", "e2e_mean_ms", "goodput_per_s", "hit_ratio")
"""Metrics that the headline speaks of."""


def cells(found: Comparison, row: Row) -> tuple[str, ...]:
    """A row of the table: metric, unit, value of the first variant, then value and difference of each later one."""
    unit = str(row.metric["unit"])
    texts = [_value(value, unit) for value in row.values]
    line = [str(row.metric["label"]), "" if unit == "B" else unit, texts[0]]
    for text, difference in zip(texts[1:], row.differences, strict=True):
        line += [text, difference_text(difference, unit)]
    return tuple(line)


def difference_text(found: Difference | None, unit: str) -> str:
    """`-12.3 [-15, -9.8]`, `~ 0.4 [-1, 2]` if it cannot be told from none, `0` if both are the same."""
    if found is None:
        return NO_VALUE
    if found.verdict == SAME:
        return "0"
    text = _signed(found.value, unit)
    if found.low is None or found.high is None:
        return text
    mark = "~ " if found.verdict == UNSURE else ""
    return f"{mark}{text} [{_signed(found.low, unit)}, {_signed(found.high, unit)}]"


def window_line(found: Comparison) -> list[str]:
    """What is judged, where that is not the whole of the runs."""
    if found.since_s is None:
        return []
    return [
        f"Judged: requests sent after the snapshot at {seconds(found.since_s)}, of all variants; until then they are "
        "one run."
    ]


def method_lines(found: Comparison) -> list[str]:
    """What is judged, and how the intervals were made; once if it is the same for all."""
    if len(set(found.methods)) == 1:
        return [*window_line(found), f"Intervals: {found.methods[0]}."]
    texts = zip(found.labels[1:], found.methods, strict=True)
    return [*window_line(found), *(f"Intervals of {label}: {text}." for label, text in texts)]


def headline(found: Comparison) -> list[str]:
    """One sentence for each later variant: what is better, what is worse, what cannot be told."""
    rows = {row.metric["key"]: row for row in found.rows}
    return [
        f"{label} against {found.labels[0]}: {_sentence([rows[key] for key in HEADLINE if key in rows], place)}"
        for place, label in enumerate(found.labels[1:])
    ]


def _sentence(rows: Sequence[Row], place: int) -> str:
    groups: dict[str, list[str]] = {"better": [], "worse": [], UNSURE: [], SAME: [], NO_INTERVAL: []}
    for row in rows:
        difference = row.differences[place]
        if difference is None:
            continue
        label, kind = str(row.metric["label"]), difference.verdict
        if kind in (LESS, MORE):
            kind = "better" if (kind == LESS) == (row.metric["better"] == "lower") else "worse"
        groups[kind].append(label if kind in (SAME, UNSURE) else f"{label} {_change(row, difference)}")
    if groups[SAME] and not any(groups[kind] for kind in groups if kind != SAME):
        return "no difference"
    names = {"better": "better: ", "worse": "worse: ", UNSURE: "cannot be told apart: ", SAME: "the same: "}
    names[NO_INTERVAL] = "no interval for: "
    # Names of metrics have commas in them ("TTFT, mean"): semicolons tell them apart, and full stops the groups.
    parts = [names[kind] + "; ".join(texts) for kind, texts in groups.items() if texts]
    return ". ".join([*parts[:1], *(part[0].upper() + part[1:] for part in parts[1:])])


def _change(row: Row, difference: Difference) -> str:
    """By how much, in per cent of the first; of a percentage, in points."""
    first, unit = row.values[0], str(row.metric["unit"])
    if unit == "%":
        return f"{_signed(difference.value, unit)}{NBSP}points"
    if not first:
        return f"{_signed(difference.value, unit)}{NBSP}{unit}"
    return f"{'+' if difference.value > 0 else '-'}{percent(abs(difference.value) / abs(first))}"


def _value(value: float | None, unit: str) -> str:
    text, shown = metric_value(value, unit)
    return f"{text} {shown}" if unit == "B" and value is not None else text


def _signed(value: float, unit: str) -> str:
    text, shown = metric_value(abs(value), unit) if unit == "B" else (number(abs(float(value)), 3), "")
    sign = "+" if value > 0 else "-" if value < 0 else ""
    return f"{sign}{text} {shown}".strip()
