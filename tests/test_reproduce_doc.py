"""docs/reproduce.md has every figure of every system, under the columns that the command prints."""

import re
from pathlib import Path

from reports.reproduce_text import COLUMNS
from sim.reproduce.systems import SYSTEMS

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "reproduce.md").read_text()
TABLE = TEXT[TEXT.index("<!-- reproduce: begin -->") : TEXT.index("<!-- reproduce: end -->")]
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")] for line in TABLE.splitlines() if line.startswith("| ")
]


def test_no_row_is_missing_and_none_is_of_yesterday() -> None:
    shown = [(row[0], row[1]) for row in ROWS if row[0] in SYSTEMS]
    wanted = [(name, f"{t.where}: {f.label}") for name, tables in SYSTEMS.items() for t in tables for f in t.figures]
    assert shown == wanted


def test_columns_and_published_numbers_are_those_of_the_command() -> None:
    heads = [row for row in ROWS if row[0] == COLUMNS[0]]
    assert heads == [list(COLUMNS)] * len(SYSTEMS)
    assert re.findall(r"^### (\S+)$", TABLE, re.MULTILINE) == list(SYSTEMS)
    kinds = {"reproduced", "calibrated", "arithmetic", "ordering", "not comparable"}
    for row in ROWS:
        if row[0] in SYSTEMS:
            assert row[6] in "RSMD"
            assert row[7] in kinds
            assert row[8] in {"yes", "no", "–"}
