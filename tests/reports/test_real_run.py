"""The report of a real run: what the simulator writes is what the report reads."""

from pathlib import Path

import pytest

from reports.kinds import write_report
from reports.load import load_run

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    from kvsim import Scenario

    return Scenario.load(EXAMPLE).run().save(tmp_path_factory.mktemp("real") / "run")


def test_a_real_run_has_every_figure(real_run):
    page = write_report(real_run).read_text(encoding="utf-8")
    figures = page.count('<figure id="')
    assert figures >= 15
    assert page.count('class="chart"') == figures
    assert "quickstart" in page


def test_the_table_agrees_with_the_summary(real_run):
    run = load_run(real_run)
    assert run.finished.rows == run.summary["requests"]["finished"]
    hits = run.summary["prefix"]["hit_tokens"]
    assert {t: run.finished[f"hit_{t}_tokens"].sum() for t in run.tiers} == hits
    assert sum(run.finished[c].mean() for c in ("queue_s", "load_s", "prefill_s")) * 1e3 == pytest.approx(
        run.summary["ttft_ms"]["mean"]
    )
