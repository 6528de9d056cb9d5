"""The section of two pools on the page of a run that has them alone, its spans on the timeline, and --explain."""

import json
from pathlib import Path

import pytest

from reports.figures.parts import COLORS
from reports.load import load_run
from reports.page import run_sections
from reports.tables import link_tables
from reports.timeline import write_timeline
from sim.disaggregation_spec import DisaggregationSpec, KVLinkSpec
from sim.result import Result
from sim.run import simulate
from sim.scenario import Scenario
from sim.whatif.explain import explain

DOCUMENT = {
    "schema": "kvsim-scenario/1",
    "trace": {"generate": {"requests": 60, "rate": 8, "turns": 1, "output_tokens": {"mean": 40, "sigma": 0.5}}},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm", "replicas": 2},
    "disaggregation": {"prefill": 1, "decode": 1, "transfer": "chunk", "link": {"bandwidth": "10 GB/s"}},
}


@pytest.fixture(scope="module")
def result() -> Result:
    return simulate(Scenario.from_dict(DOCUMENT))


@pytest.fixture(scope="module")
def saved(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("run"))


def test_the_page_has_the_section(saved: Path) -> None:
    run = load_run(saved)
    [section] = [s for s in run_sections(run) if s.key == "disaggregation"]
    waits, pools = section.tables
    did = run.summary["disaggregation"]
    cells = {row[0]: row[1] for row in waits.rows}
    assert cells["Handed over"] == str(did["requests"])
    assert "P99" in cells["Transfer"]
    assert [row[0] for row in pools.rows] == ["prefill, 1 instance", "decode, 1 instance"]
    [split] = [figure for s in run_sections(run) for figure in s.figures if figure.key == "e2e-split"]
    assert "KV to the decode instance" in {trace["name"] for trace in split.data}
    assert {f"handoff_{part}" for part in ("memory", "transfer", "place")} <= COLORS.keys()
    [links] = link_tables(run)
    assert "To decode" in links.columns
    assert {row[0].partition(",")[0] for row in links.rows} == {"KV", "KV link"}


def test_a_page_without_two_pools_has_none(shared_run: Path) -> None:
    assert not [s for s in run_sections(load_run(shared_run)) if s.key == "disaggregation"]


def test_the_timeline_shows_what_crosses(saved: Path, result: Result, tmp_path: Path) -> None:
    events = json.loads(write_timeline(saved, tmp_path).path.read_text())["traceEvents"]
    requests = result.frames["requests"]
    spans = [e for e in events if e.get("name") == "to the decode instance"]
    late = requests[requests.decode_start_s > requests.first_token_s]
    assert len(spans) == len(late) > 0
    assert spans[0]["args"]["decode_replica"] == 1
    crossing = [e for e in events if e.get("name") == "handoff prefill to decode"]
    assert sum(e["args"]["bytes"] for e in crossing) == result.summary["disaggregation"]["bytes"]


def test_explain_halves_and_doubles_the_link(result: Result) -> None:
    study = explain(result, Scenario.from_dict(DOCUMENT), requests=30)
    found = {resource["key"]: resource for resource in study["resources"]}
    assert "cap.kv_out" not in found
    slow, fast = (run["metrics"]["tpot_p95_ms"] for run in found["device.kv_link"]["runs"])
    assert slow > fast


def test_the_page_of_the_documentation_has_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs" / "disaggregation.md").read_text()
    table = text.partition("| key | default | meaning |")[2].partition("\n\n")[0]
    told = {key.strip(" `") for row in table.splitlines()[2:] for key in row.split("|")[1].split(",")}
    assert {key.partition(".")[0] for key in told} == set(DisaggregationSpec.model_fields)
    assert all(f"{key}" in table for key in KVLinkSpec.model_fields)
