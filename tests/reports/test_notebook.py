"""Figures and tables for a notebook and for other programs are those of the report."""

import csv
import json
import re

import pytest

from hw_profiles.errors import InputError
from reports.kinds import write_report
from reports.notebook import COLOR_KEYS, figures, palette, resolved
from reports.sheets import Sheet, as_csv, as_markdown, write_sheets

DATA = re.compile(r'<script type="application/json" id="([\w-]+)-data">(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def on_page(shared_run, tmp_path_factory):
    """Data and layout of every figure of the report, by its anchor."""
    page = write_report(shared_run, tmp_path_factory.mktemp("page") / "report.html").read_text("utf-8")
    return {key: json.loads(text) for key, text in DATA.findall(page)}


def without_colors(node):
    if isinstance(node, dict):
        return {key: without_colors(value) for key, value in node.items() if key not in COLOR_KEYS}
    return [without_colors(value) for value in node] if isinstance(node, list) else node


def test_the_figures_are_those_of_the_page(shared_run, on_page):
    made = figures(shared_run)
    drawn = {key: json.loads(figure.to_json()) for key, figure in made.items() if figure.data}
    assert list(drawn) == list(on_page)
    assert len(drawn) > 15
    for key, figure in drawn.items():
        assert without_colors(figure["data"]) == without_colors(on_page[key]["data"]), key
        assert "--c-" not in json.dumps(figure), key
        assert figure["layout"]["title"]["text"]
        assert figure["layout"].get("height", 0) >= on_page[key]["layout"].get("height", 0)
        for name, axis in on_page[key]["layout"].items():
            if name.startswith(("xaxis", "yaxis")):
                assert figure["layout"][name].get("title") == axis.get("title"), key


def test_colours_are_those_of_the_light_page():
    assert palette()["--c-blue"] == "#0072b2"
    assert resolved({"line": {"color": "--c-blue"}, "name": "--c-blue", "fillcolor": "--c-blue-soft"}) == {
        "line": {"color": "#0072b2"},
        "name": "--c-blue",
        "fillcolor": "rgba(0,114,178,0.2)",
    }
    assert resolved({"color": ["--c-ink", 3]}) == {"color": ["#16191f", 3]}


def test_tables_hold_the_numbers_of_the_summary(shared_run, tmp_path):
    summary = json.loads((shared_run / "summary.json").read_text())
    files = write_sheets(shared_run, "csv", tmp_path)
    assert [file.name for file in files] == ["metrics.csv", "tiers.csv", "links.csv", "attribution.csv"]
    metrics, tiers, links, _ = (list(csv.DictReader(file.open())) for file in files)
    assert {row["key"]: float(row["value"]) for row in metrics} == {m["key"]: m["value"] for m in summary["metrics"]}
    for rows, group, name in ((tiers, "tiers", "tier"), (links, "links", "link")):
        found = {(row[name], row["field"]): float(row["value"]) for row in rows}
        assert found == {(n, key): value for n, fields in summary[group].items() for key, value in fields.items()}


def test_markdown_keeps_a_cell_a_cell():
    sheet = Sheet("any", ("name", "value"), [("a|b\n<c>", 1234567.0), ("none", None)])
    assert as_markdown(sheet) == "| name | value |\n| --- | ---: |\n| a\\|b &lt;c> | 1.23457e+06 |\n| none |  |\n"
    assert as_csv(sheet) == 'name,value\n"a|b\n<c>",1234567.0\nnone,\n'


def test_another_format_is_refused_before_anything_is_written(shared_run, tmp_path):
    with pytest.raises(InputError, match="--tables: found 'xls', expected one of csv, md"):
        write_sheets(shared_run, "xls", tmp_path)
    assert list(tmp_path.iterdir()) == []
