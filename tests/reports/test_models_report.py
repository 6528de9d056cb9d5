"""The table of several models on the same GPUs has the numbers of the summary."""

from pathlib import Path

import pytest

from reports.fleet import models_tables
from reports.load import load_run
from reports.page import run_sections
from sim.run import simulate
from sim.scenario import Scenario

BASE = {"schema": "kvsim-scenario/1", "model": "llama-3.1-8b", "trace": {"generate": {"requests": 60, "rate": 4}}}


def test_a_run_of_one_model_has_none(shared_run: Path) -> None:
    assert models_tables(load_run(shared_run)) == []


def test_each_model_of_a_pool_has_a_row(tmp_path: Path) -> None:
    models = ["llama-3.1-8b", "qwen2.5-7b"]
    fleet = {"scaling": "target_utilization", "min": 0, "models": models, "prewarm": {"name": "serverless_llm"}}
    hardware = {"profile": "a100-80", "replicas": 2}
    document = {**BASE, "hardware": hardware, "engine": {"prefix_caching": False}, "fleet": fleet}
    run = load_run(simulate(Scenario.from_dict(document)).save(tmp_path))
    [table] = models_tables(run)
    assert [row[0] for row in table.rows] == models
    assert [row[3] for row in table.rows] == [
        f"{m['finished']} of {m['requests']}" for m in run.summary["fleet"]["models"]
    ]
    assert all(len(row) == len(table.columns) for row in table.rows)
    [section] = [s for s in run_sections(run) if s.key == "fleet"]
    share = run.summary["fleet"]["gpu_share"]
    on = {row[0]: row[1] for row in section.tables[0].rows}["Replicas on, mean"]
    assert float(on.split("(")[1].removesuffix(")").removesuffix("%")) == pytest.approx(100 * share, rel=0.05)
