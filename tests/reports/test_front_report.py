"""The sections on what is looked up before a replica: there only with it, with the numbers of the summary."""

from pathlib import Path

import pytest

from kvsim.cli._summary import print_summary
from reports.front import index_table, responses_table
from reports.load import load_run
from reports.page import run_sections

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from kvsim import Scenario

    reuse = [{"name": "instcache", "capacity": "1 GB"}, "response_cache", "metadata_index"]
    scenario = Scenario.load(EXAMPLE).set_all([("trace.limit", 100), ("policies.reuse", reuse)])
    return load_run(scenario.run().save(tmp_path_factory.mktemp("front") / "run"))


def test_the_tables_have_the_numbers_of_the_summary(run):
    did, index = run.summary["response_cache"], run.summary["metadata_index"]
    answered, asked = responses_table(run.summary), index_table(run.summary)
    assert 0 < did["hits"] < 100
    values = {row[0]: row[1] for row in answered.rows}
    assert values["Answered"].startswith(f"{did['hits']} (")
    assert [values[cache["name"]].split()[0] for cache in did["caches"]] == [str(c["hits"]) for c in did["caches"]]
    assert {row[0]: row[1] for row in asked.rows}["Lookups"] == str(index["lookups"]) == str(100 - did["hits"])
    assert all(len(row) == len(table.columns) for table in (answered, asked) for row in table.rows)
    keys = [section.key for section in run_sections(run)]
    assert keys.index("metadata_index") == keys.index("response_cache") + 1


def test_the_console_says_it_too(run, capsys):
    print_summary(run.summary)
    text = capsys.readouterr().out
    assert f"answered by instcache and response_cache: {run.summary['response_cache']['hits']} requests, " in text
    assert "lookups of prefixes: mean " in text


def test_there_are_none_without(shared_run):
    run = load_run(shared_run)
    assert responses_table(run.summary) is None
    assert index_table(run.summary) is None
    assert not {"response_cache", "metadata_index"} & {section.key for section in run_sections(run)}
