"""The section of replicas that come and go, on the page of a run that has them alone."""

from pathlib import Path

import pytest

from reports.figures.base import TimeAxis
from reports.fleet import fleet_panel
from reports.load import load_run
from reports.page import run_sections
from sim.run import simulate
from sim.scenario import Scenario

DOCUMENT = {
    "schema": "kvsim-scenario/1",
    "trace": {"generate": {"requests": 150, "rate": 8, "turns": 1}},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm", "replicas": 4},
}
FLEET = {"scaling": {"name": "target_utilization", "requests": 4}, "min": 0, "start_time": "3 s"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = Scenario.from_dict({**DOCUMENT, "fleet": FLEET})
    return simulate(scenario).save(tmp_path_factory.mktemp("run"))


def test_the_page_has_the_section(saved: Path) -> None:
    run = load_run(saved)
    [section] = [s for s in run_sections(run) if s.key == "fleet"]
    did = run.summary["fleet"]
    cells = {row[0]: row[1] for row in section.tables[0].rows}
    assert cells["Starts"] == str(did["starts"])
    assert cells["Gateway"].startswith(f"{did['gateway']['requests']} requests")
    [figure] = section.figures
    serving = next(trace for trace in figure.data if trace["name"] == "serving")
    assert max(serving["y"]) == max(run.samples["value"][run.samples.texts["metric"].mask("serving")])
    assert len(serving["x"]) == len(serving["y"])


def test_waits_at_the_gateway_are_a_part_of_ttft(saved: Path) -> None:
    sections = {s.key: s for s in run_sections(load_run(saved))}
    text = str([trace["name"] for s in sections.values() for f in s.figures for trace in f.data if "name" in trace])
    assert "at the gateway" in text


def test_a_run_without_scaling_has_none(tmp_path: Path) -> None:
    run = load_run(simulate(Scenario.from_dict({**DOCUMENT, "trace": {"generate": {"requests": 5}}})).save(tmp_path))
    assert fleet_panel(run, TimeAxis.__new__(TimeAxis)) is None
