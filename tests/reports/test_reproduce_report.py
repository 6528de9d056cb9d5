"""The page, the Markdown and the CSV of `kvsim reproduce`, from verdicts made up here."""

import csv
import dataclasses
import io
import json
import math
import re

import pytest

from reports.figures.reproduce import pairs
from reports.reproduce_report import render
from reports.reproduce_text import COLUMNS, as_csv, as_markdown, by_kind, cells, sentence, summary_line, told
from sim.reproduce.rows import Figure, Table, Verdict, row_of, verdict
from sim.reproduce.setting import Setting

SETTING = Setting("llama-2-7b", "a100-80", 1, 64, 4)
NASTY = "<img src=x onerror=alert(1)> | 10k"


def judged(source: str, kind: str, *pairs_of: tuple[float, float], unit: str = "ms", name: str = "row") -> Verdict:
    figures = tuple(
        Figure(f"{name} {k}", published, unit, (SETTING,), lambda m: m.step_ms, note="a note" if k == 0 else "")
        for k, (published, _) in enumerate(pairs_of)
    )
    fitted = "other = 15.1 ms" if kind == "calibrated" else ""
    table = Table("lckv", f"table {source}", source, "somewhere", figures, kind, fitted)  # type: ignore[arg-type]
    rows = [
        row_of(table, figure, simulated, "cannot run" if math.isnan(simulated) else "")
        for figure, (_, simulated) in zip(figures, pairs_of, strict=True)
    ]
    return verdict(table, rows)


GOOD = judged("R", "calibrated", (10.0, 11.0), (20.0, 19.0))
BAD = judged("S", "reproduced", (10.0, 20.0), (1.0, math.nan), name=NASTY)
RECALLED = judged("M", "reproduced", (1.0, 5.0))


def test_the_page_has_every_row_and_says_what_was_missed() -> None:
    page = render([GOOD, BAD, RECALLED], "1.2.3")
    assert NASTY not in page
    assert page.count("row 0") >= 2
    assert (
        "Met: reproduced 0 of 2 rows (0 of 1 tables), calibrated 2 of 2 rows (1 of 1 tables); shown and not judged: 1."
        in page
    )
    assert "<dt>calibrated</dt><dd>2 of 2 rows (1 of 1 tables)</dd>" in page
    assert 'class="verdict missed"' in page
    assert "lckv, table S" in page
    assert "other = 15.1 ms" in page
    assert 'class="verdict met"' in render([GOOD, RECALLED], "1.2.3")


def test_bars_come_in_pairs_and_what_is_not_judged_is_grey() -> None:
    (figure,) = pairs("k", BAD)
    published, simulated = figure.data
    assert (published["x"], simulated["x"]) == ([10.0, 1.0], [20.0, None])
    assert len(set(published["y"])) == 2
    assert "<" not in "".join(published["y"])
    (recalled,) = pairs("k", RECALLED)
    assert {color for trace in recalled.data for color in trace["marker"]["color"]} == {"--c-grey"}
    json.loads(figure.json())


@pytest.mark.parametrize(("most", "kind"), [(100.0, None), (1e5, "log")])
def test_values_far_apart_are_drawn_by_their_logarithm(most: float, kind: str | None) -> None:
    (figure,) = pairs("k", judged("R", "reproduced", (10.0, 11.0), (most, most)))
    assert figure.layout["xaxis"].get("type") == kind


def test_each_unit_has_a_figure_of_its_own() -> None:
    mixed = Verdict(GOOD.table, (*GOOD.rows, *judged("R", "reproduced", (1.0, 1.0), unit="GB").rows), True, 0.0, 1.0)
    assert [figure.title for figure in pairs("k", mixed)] == ["table R (ms)", "table R (GB)"]


def test_markdown_is_a_table_and_csv_has_everything() -> None:
    text = as_markdown([GOOD, BAD])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == list(COLUMNS)
    rows = list(csv.DictReader(io.StringIO(as_csv([GOOD, BAD]))))
    assert [row["target_met"] for row in rows] == ["True", "True", "False", "False"]
    assert rows[3]["simulated"] == ""
    assert float(rows[0]["ratio"]) == pytest.approx(1.1)


def test_words_for_people() -> None:
    assert cells(GOOD.rows[0])[3:] == ("11", "1.10", "ms", "R", "calibrated", "yes")
    assert cells(BAD.rows[1])[3:5] == ("–", "–")
    assert cells(RECALLED.rows[0])[-1] == "–"
    assert "Fitted: other = 15.1 ms" in told(GOOD)
    assert "cannot run" in told(BAD)
    assert sentence("once. twice.") == "Once. twice."


def test_kinds_are_counted_apart_and_never_together() -> None:
    exact = judged("D", "arithmetic", (1.0, 1.0), (2.0, 2.0), (3.0, 3.0))
    orders = judged("S", "ordering", (3.0, 3.0), (2.0, 1.0))
    every = [GOOD, exact, orders, BAD, RECALLED]
    assert by_kind(every) == {
        "reproduced": "0 of 2 rows (0 of 1 tables)",
        "calibrated": "2 of 2 rows (1 of 1 tables)",
        "arithmetic": "3 of 3 rows (1 of 1 tables)",
        "orders": "1 of 2 rows (0 of 1 tables)",
    }
    line = summary_line(every)
    assert all(f"{kind} {met}" in line for kind, met in by_kind(every).items())
    assert line.endswith("; shown and not judged: 1")
    assert not re.search(r"\bof [4-9]\b", line)  # nine are judged: no number is of more than one kind
    assert summary_line([RECALLED]).startswith("met: nothing was judged")


def test_a_row_of_another_kind_than_its_table_counts_among_its_own() -> None:
    mixed = dataclasses.replace(GOOD, rows=(GOOD.rows[0], *judged("D", "ordering", (1.0, 1.0)).rows))
    assert by_kind([mixed]) == {"calibrated": "1 of 1 rows (1 of 1 tables)", "orders": "1 of 1 rows"}
