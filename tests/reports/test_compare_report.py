"""The page of a comparison: complete, offline, and what it says is what was found."""

import html
import json
import re
from pathlib import Path

import pytest

from reports.compare_report import render, write_compare_report
from reports.compare_text import cells, difference_text, headline
from reports.figures.differences import differences
from sim.scenario import Scenario
from sim.whatif.compare import LESS, SAME, UNSURE, Comparison, Difference, Row, compare
from sim.whatif.runs import Job, run_jobs
from sim.whatif.variants import expand


@pytest.fixture(scope="module")
def found() -> Comparison:
    """The shipped trace on one replica with little memory, and with more."""
    document = {
        "schema": "kvsim-scenario/1",
        "trace": {"name": "quickstart", "limit": 1200},
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "30 GiB"}],
    }
    variants = expand(Scenario.from_dict(document), [("tiers.dram.capacity", ["0 B", "30 GiB", "300 GiB"])])
    return compare([[run] for run in run_jobs([Job.of(v.label, v.scenario) for v in variants], workers=1)])


def test_points_are_the_differences_in_per_cent(found: Comparison) -> None:
    figure = differences(found)
    assert [trace["name"] for trace in figure.data] == ["30 GiB", "300 GiB"]
    rows = {row.metric["label"]: row for row in found.rows}
    for place, trace in enumerate(figure.data):
        assert len(trace["y"]) > 5
        for label, x, up, down in zip(
            trace["y"], trace["x"], trace["error_x"]["array"], trace["error_x"]["arrayminus"], strict=True
        ):
            points = label.endswith(", points")
            row = rows[label.removesuffix(", points")]
            assert points == (row.metric["unit"] == "%")
            difference, first = row.differences[place], 100 if points else row.values[0]
            assert x == pytest.approx(100 * difference.value / first, rel=1e-4)
            assert up == pytest.approx(100 * (difference.high - difference.value) / first, rel=1e-4)
            assert down == pytest.approx(100 * (difference.value - difference.low) / first, rel=1e-4)


def test_percentages_are_in_points_in_the_chart() -> None:
    metric = {"key": "hit_ratio", "label": "Prefix hit ratio", "unit": "%", "better": "higher"}
    row = Row(metric, (20.0, 15.0), (Difference(-5.0, -6.0, -4.0, LESS),))
    (trace,) = differences(Comparison(("a", "b"), (row,), ("",), ())).data
    assert list(trace["x"]) == [-5.0]
    assert list(trace["y"]) == ["Prefix hit ratio, points"]


def test_the_page_needs_nothing_else_and_shows_every_number(found: Comparison, tmp_path: Path) -> None:
    page = write_compare_report(found, tmp_path).read_text("utf-8")
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", outside)
    (figure,) = re.findall(r'<script type="application/json" id="differences-data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(figure)["data"]
    shown = [html.unescape(cell) for cell in re.findall(r'<td class="n">([^<]*)</td>', outside)]
    for row in found.rows:
        assert [cell for cell in cells(found, row)[2:] if cell not in shown] == []
    assert all(sentence in html.unescape(page) for sentence in headline(found))


def test_names_are_text(found: Comparison) -> None:
    nasty = "</script><img src=x onerror=alert(1)>"
    page = render(Comparison((nasty, *found.labels[1:]), found.rows, found.methods, found.summaries))
    assert nasty not in page


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (Difference(-12.34, -15.0, -9.8, LESS), "-12.3 [-15, -9.8]"),
        (Difference(0.4, -1.0, 2.0, UNSURE), "~ +0.4 [-1, +2]"),
        (Difference(0.0, 0.0, 0.0, SAME), "0"),
        (None, "–"),
    ],
)
def test_differences_in_words(difference: Difference | None, text: str) -> None:
    assert difference_text(difference, "ms") == text


def test_the_headline_tells_names_with_commas_apart(found: Comparison) -> None:
    text = headline(found)[0]
    for metric in ("TTFT, mean", "E2E, mean"):
        before = text[: text.index(metric)]
        assert before.endswith((": ", "; "))
