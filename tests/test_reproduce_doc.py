"""docs/reproduce.md has every figure of every system, under the columns that the command prints."""

import re
from pathlib import Path

from reports.reproduce_text import COLUMNS, COUNTED
from sim.reproduce.systems import SYSTEMS, without_figures

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


def test_the_headline_counts_the_rows_below_it_kind_by_kind() -> None:
    headline = TABLE.strip().splitlines()[1]
    for kind, name in COUNTED.items():
        met = [row[8] == "yes" for row in ROWS if row[7] == kind and row[8] in {"yes", "no"}]
        assert f"{name} {sum(met)} of {len(met)} rows" in headline
    shown = sum(row[8] == "–" for row in ROWS)
    assert headline.endswith(f"; shown and not judged: {shown}.")


def test_kinds_of_the_rows_are_those_of_the_command() -> None:
    shown = [(row[1], row[7]) for row in ROWS if row[0] in SYSTEMS]
    wanted = [
        (f"{t.where}: {f.label}", f.kind or t.kind) for tables in SYSTEMS.values() for t in tables for f in t.figures
    ]
    assert shown == wanted


def test_systems_without_figures_are_listed() -> None:
    section = TEXT[TEXT.index("## Systems without published figures here") : TEXT.index("## The table")]
    assert re.findall(r"`(\w+)`", section.partition(". ")[0]) == without_figures()
