"""The section on drafted tokens: there only with speculation, with the numbers of the summary."""

from pathlib import Path

import pytest

from reports.load import load_run
from reports.page import run_sections
from reports.speculation import speculation_table

EXAMPLE = Path(__file__).parents[2] / "examples" / "speculation.yaml"


@pytest.mark.parametrize("method", ["mtp", "ngram"])
def test_the_table_has_the_numbers_of_the_summary(tmp_path, method):
    from kvsim import Scenario

    drafts = {"method": method, "tokens": 3, "acceptance": 0.7}
    scenario = Scenario.load(EXAMPLE).set_all([("trace.limit", 20), ("engine.speculation", drafts)])
    run = load_run(scenario.run().save(tmp_path / "run"))
    did, table = run.summary["speculation"], speculation_table(run)
    assert table is not None
    values = {row[0]: row[1] for row in table.rows}
    assert values["tokens drafted"] == f"{did['drafted']:,}"
    assert values["accepted length"] == f"{did['accepted_length']:.2f}"
    assert did["drafted"] == 3 * did["verified"] == did["accepted"] + did["wasted"]
    assert did["kept"] + did["past_the_end"] == did["verified"] + did["accepted"]
    assert ("drafting" in values) == (method == "mtp")
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "speculation" in [section.key for section in run_sections(run)]


def test_there_is_none_without_speculation(shared_run):
    run = load_run(shared_run)
    assert speculation_table(run) is None
    assert "speculation" not in [section.key for section in run_sections(run)]
