"""Published figures beside simulated ones as text: cells, the table in Markdown, the one for programs in CSV."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

from reports.text import NO_VALUE, number
from sim.reproduce.rows import JUDGED, Kind, Row, Verdict

COLUMNS = ("System", "Figure", "Published", "Simulated", "Ratio", "Unit", "Source", "Kind", "Target met")
NUMBERS = (2, 3, 4)
COUNTED: Mapping[Kind, str] = {
    "reproduced": "reproduced", "calibrated": "calibrated", "arithmetic": "arithmetic", "ordering": "orders",
}  # fmt: skip
CSV_COLUMNS = (
    "system", "figure", "setting", "published", "simulated", "ratio", "unit", "source", "kind", "target", "target_met",
    "note",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """One row as people read it."""
    met = {True: "yes", False: "no", None: NO_VALUE}[row.target_met]
    ratio = NO_VALUE if math.isnan(row.ratio) else f"{row.ratio:.2f}"
    simulated = NO_VALUE if math.isnan(row.simulated) else number(row.simulated)
    return row.system, row.figure, number(row.published), simulated, ratio, row.unit, row.source, row.kind, met


def by_kind(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """How many rows of each kind that is judged met their target, and tables; no number is of several kinds together.

    A table counts among those of its own kind, a row among those of its own.
    """
    found = {}
    for kind in JUDGED:
        rows = [bool(row.target_met) for v in verdicts for row in v.rows if row.counted and row.kind == kind]
        tables = [v.met for v in verdicts if v.met is not None and v.table.kind == kind]
        if rows:
            of_tables = f" ({sum(tables)} of {len(tables)} tables)" if tables else ""
            found[COUNTED[kind]] = f"{sum(rows)} of {len(rows)} rows{of_tables}"
    return found


def summary_line(verdicts: Sequence[Verdict]) -> str:
    """What met its target, kind by kind, and how many rows were not judged."""
    kinds = ", ".join(f"{kind} {met}" for kind, met in by_kind(verdicts).items())
    shown = sum(not row.counted for v in verdicts for row in v.rows)
    return f"met: {kinds or 'nothing was judged'}; shown and not judged: {shown}"


def as_csv(verdicts: Iterable[Verdict]) -> str:
    """Every row with everything that is known of it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for found in verdicts:
        for row in found.rows:
            writer.writerow("" if _blank(value := getattr(row, name)) else value for name in CSV_COLUMNS)
    return out.getvalue()


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    """Every row, system after system, each table with its verdict."""
    align = ["---:" if k in NUMBERS else "---" for k in range(len(COLUMNS))]
    head = [f"| {' | '.join(COLUMNS)} |", f"|{'|'.join(align)}|"]
    lines = [sentence(summary_line(verdicts)), ""]
    for system in dict.fromkeys(v.table.system for v in verdicts):
        own = [v for v in verdicts if v.table.system == system]
        lines += [f"### {system}", ""]
        for found in own:
            lines += [f"- {found.table.where}: {told(found)}"]
        lines += ["", *head]
        lines += [f"| {' | '.join(_escaped(cell) for cell in cells(row))} |" for v in own for row in v.rows]
        lines += [""]
    return "\n".join(lines)


def told(found: Verdict) -> str:
    """What a table is, how it came out, what was fitted and what to know."""
    table = found.table
    parts = [f"{found.text} ({table.setting})"]
    if table.fitted:
        parts.append(f"Fitted: {table.fitted}")
    if table.note:
        parts.append(table.note)
    by_note: dict[str, list[str]] = {}
    for row in found.rows:
        if row.note:
            by_note.setdefault(row.note, []).append(label(row))
    notes = [f"{' · '.join(labels)}: {note}" for note, labels in by_note.items()]
    return " ".join(sentence(part) for part in (*parts, *notes))


def sentence(text: str) -> str:
    """With a capital at its start and one full stop at its end."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def label(row: Row) -> str:
    """The name of a row within its table."""
    return row.figure.partition(": ")[2]


def _blank(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
