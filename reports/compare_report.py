"""`compare.html`: variants side by side, written by `kvsim compare --out DIR`."""

from pathlib import Path

from hw_profiles.files import write_atomic
from reports.compare_text import COLUMNS_NOTE, cells, headline, method_lines
from reports.document import Section, document
from reports.figures.differences import differences
from reports.tables import TextTable
from reports.text import number
from sim.whatif.compare import Comparison

NOTES = (
    "Differences, not values, have intervals: variants see the same requests at the same times, so what they share "
    "cancels.",
    "Requests of a queue depend on each other. Whole blocks of time are resampled, as long as the correlation of the "
    "differences asks for and at least as long as the longest time over which a queue did not empty; the requests of a "
    "conversation stay together.",
    "At 90 %, about one metric in ten that does not differ looks as if it did. Intervals are about this load: they do "
    "not hold what the hardware profile is unsure of.",
)


def write_compare_report(found: Comparison, folder: Path) -> Path:
    """Write `folder/compare.html` and return where it is. The file is complete or absent. Raises InputError."""
    target = folder / "compare.html"
    write_atomic(target, render(found))
    return target


def render(found: Comparison) -> str:
    """The whole comparison as one HTML document."""
    first = found.summaries[0]
    return document(
        "compare.html.j2",
        labels=found.labels,
        facts=[
            ("trace", str(first["trace"]["name"])),
            ("requests", number(first["requests"]["arrived"])),
            ("model", str(first["model"]["name"])),
            ("hardware", str(first["hardware"]["profile"])),
            ("kvsim", str(first["version"])),
        ],
        headline=headline(found),
        sections=[Section("metrics", "Metrics", [differences(found)], [metric_table(found)])],
        notes=[*method_lines(found), *NOTES],
    )


def metric_table(found: Comparison) -> TextTable:
    """Every metric: value of each variant, and difference of each later one."""
    heads = ["Metric", "Unit", found.labels[0]]
    for label in found.labels[1:]:
        heads += [label, "Difference [90 %]"]
    terms = [(str(row.metric["label"]), str(row.metric["definition"])) for row in found.rows]
    rows = [cells(found, row) for row in found.rows]
    return TextTable("values", "Every metric", COLUMNS_NOTE, heads, rows, range(2, len(heads)), terms)
