"""The page of a regret study: complete, offline, and what it says is what the study holds."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reports.figures.regret import regret_figures, surplus
from reports.kinds import write_report
from reports.regret_report import cells, columns, headline, render
from sim.cache.regret import PolicyRow, Regret, run_regret
from sim.cache.save_regret import save_regret
from sim.scenario import Scenario

NASTY = "<img src=x onerror='window.pwned=1'></script><script>window.pwned=2</script>"


@pytest.fixture(scope="module")
def study() -> Regret:
    """The shipped trace on one replica with little memory."""
    document = {
        "schema": "kvsim-scenario/1",
        "trace": "quickstart",
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "engine": {"num_gpu_blocks": 4000},
        "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "30 GiB"}],
    }
    return run_regret(Scenario.from_dict(document, where="tight.yaml"), ["scenario", "sieve", "belady"])


def test_bars_add_up_to_the_seconds_above_what_everyone_computes(study: Regret) -> None:
    spent, tokens = regret_figures(study)
    stacked = [bar for bar in spent.data if len(bar["x"]) == len(study.rows)]
    assert [bar["name"] for bar in stacked] == ["loaded from DRAM", "computed again"]
    for i, row in enumerate(study.rows):
        assert sum(bar["x"][i] for bar in stacked) == pytest.approx(row.seconds - study.bound.first_s, rel=1e-3)
        assert sum(bar["x"][i] for bar in tokens.data) == pytest.approx(100, rel=1e-3)
    limit = study.bound.seconds - study.bound.first_s
    assert spent.data[-1]["x"] == [pytest.approx(limit, rel=1e-3)]
    assert spent.layout["shapes"][0]["x0"] == pytest.approx(limit)
    assert spent.layout["xaxis"]["range"][1] > max(row.seconds for row in study.rows) - study.bound.first_s


def test_the_page_needs_nothing_else_and_shows_every_number(study: Regret, tmp_path: Path) -> None:
    save_regret(study, tmp_path)
    page = write_report(tmp_path).read_text("utf-8")
    assert page == render(study)  # nothing is lost on the way through the file
    assert "default-src 'none'" in html.unescape(page)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", outside)
    figures = re.findall(r'<script type="application/json" id="([a-z-]+)-data">(.*?)</script>', page, re.DOTALL)
    assert [key for key, _ in figures] == ["regret-seconds", "regret-tokens"]
    assert all(json.loads(text)["data"] for _, text in figures)
    shown = [html.unescape(cell) for cell in re.findall(r'<td class="n">([^<]*)</td>', outside)]
    for row in study.rows:
        assert [cell for cell in cells(study, row)[1:] if cell not in shown] == []
    assert len(columns(study)) == len(cells(study, study.rows[0])) == 8
    assert headline(study) in html.unescape(page)
    assert "without queueing" in page


def test_the_headline_is_about_policies_that_can_be_deployed(study: Regret) -> None:
    assert headline(study).startswith(("The scenario as it is needs ", "sieve needs "))
    rows = tuple(row for row in study.rows if row.policy == "belady")
    assert headline(replace(study, rows=rows)).startswith("belady needs ")


def test_names_are_text(study: Regret) -> None:
    row = replace(study.rows[0], policy=NASTY)
    page = render(replace(study, trace=NASTY, scenario=NASTY, rows=(row,), left_out=3, prefetch=NASTY))
    assert "<img src=x" not in page
    assert page.count("&lt;img src=x") >= 5
    assert "left out, too long" in page


@pytest.mark.parametrize(
    ("regret", "shown"), [(0.0, "0.00\u00a0%"), (0.0742, "7.42\u00a0%"), (0.2817, "28.2\u00a0%"), (2.0, "200.0\u00a0%")]
)
def test_a_regret_in_words(regret: float, shown: str) -> None:
    assert surplus(regret) == shown


def test_a_study_without_anything_to_regret_has_a_page(study: Regret) -> None:
    row = PolicyRow("lru", {"hbm": 0, "dram": 0}, 10, 0.0, study.bound.first_s, 0.0)
    bound = study.bound._replace(seconds=study.bound.first_s)
    figure = regret_figures(replace(study, rows=(row,), bound=bound))[0]
    assert figure.layout["xaxis"]["range"] == [0, 1.0]
    assert figure.finding == "lru: regret 0.00\u00a0%."
