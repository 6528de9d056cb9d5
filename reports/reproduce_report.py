"""`reproduce.html`, and the same rows as Markdown and CSV, by `kvsim reproduce --out DIR`."""

from collections.abc import Sequence
from pathlib import Path

from hw_profiles.files import write_atomic
from reports.document import Section, document
from reports.figures.reproduce import pairs
from reports.reproduce_text import COLUMNS, as_csv, as_markdown, by_kind, cells, label, sentence, summary_line, told
from reports.tables import TextTable
from sim.reproduce.rows import MEDIAN, NEAR, SHARE, WIDE, Verdict

NOTES = (
    "Source: R, read in the paper or its repository. S, read in an abstract or in somebody's notes on it. M, recalled "
    "from memory: shown in grey and never judged. D, derived by arithmetic from what was read.",
    "Kind: reproduced, nothing was taken from the same paper. Calibrated, the table says what was. "
    "Arithmetic, an identity of bytes, to which a simulation adds nothing. Ordering, how many of the paper's orders "
    "hold. Not comparable, shown with the reason, not judged. Kinds are counted apart: the first alone is predicted.",
    f"A table that was read (R) is met if the median of |simulated / published - 1| is at most {MEDIAN:.0%} and "
    f"{SHARE:.0%} of its rows are within {WIDE:.0%}; a figure from an abstract (S) if it is within {NEAR:.0%}.",
)


def write_reproduce_report(verdicts: Sequence[Verdict], folder: Path, version: str) -> Path:
    """Write `folder/reproduce.html`, `.md` and `.csv`; return where the page is. Each is complete or absent."""
    page = folder / "reproduce.html"
    write_atomic(folder / "reproduce.csv", as_csv(verdicts))
    write_atomic(folder / "reproduce.md", as_markdown(verdicts))
    write_atomic(page, render(verdicts, version))
    return page


def render(verdicts: Sequence[Verdict], version: str) -> str:
    """The whole page as one HTML document."""
    systems = list(dict.fromkeys(found.table.system for found in verdicts))
    sections = [_section(system, [v for v in verdicts if v.table.system == system]) for system in systems]
    rows = [row for found in verdicts for row in found.rows]
    met = all(found.met is not False for found in verdicts)
    return document(
        "reproduce.html.j2",
        facts=[
            ("systems", str(len(systems))),
            ("figures", str(len(rows))),
            *by_kind(verdicts).items(),
            ("kvsim", version),
        ],
        headline=sentence(summary_line(verdicts)),
        met=met,
        missed=[f"{v.table.system}, {v.table.where}: {v.text}" for v in verdicts if v.met is False],
        sections=sections,
        notes=NOTES,
    )


def _section(system: str, verdicts: Sequence[Verdict]) -> Section:
    key = f"system-{system.replace('_', '-')}"
    tables = [
        TextTable(
            f"{key}-rows-{k}",
            found.table.where,
            told(found),
            COLUMNS[1:],
            [(label(row), *cells(row)[2:]) for row in found.rows],
            range(1, len(COLUMNS) - 1),
        )
        for k, found in enumerate(verdicts)
    ]
    figures = [figure for k, found in enumerate(verdicts) for figure in pairs(f"{key}-{k}", found)]
    return Section(key, system, figures, tables)
