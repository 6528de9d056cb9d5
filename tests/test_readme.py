"""The README says what is true: its metrics, its scenario, its commands, its policy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sim.metrics import METRICS
from sim.scenario import Scenario

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, word: str) -> str:
    """The fenced block of `language` that contains `word`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in blocks if word in text)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.key)
def test_every_metric_is_defined(metric):
    definition = metric.definition[0].upper() + metric.definition[1:]
    assert f"| {metric.label} | {metric.unit} | {definition} |" in README


def test_the_scenario_is_the_example():
    text = block("yaml", "kvsim-scenario/1")
    shown = Scenario.from_dict(yaml.safe_load(text))
    assert shown.spec == Scenario.load(ROOT / "examples" / "conversation.yaml").spec


def test_the_policy_runs(tmp_path):
    (tmp_path / "my_policy.py").write_text(block("python", "MRU"))
    text = (ROOT / "examples" / "quickstart.yaml").read_text()
    (tmp_path / "scenario.yaml").write_text(text)
    scenario = Scenario.load(tmp_path / "scenario.yaml").set("trace.limit", 300)
    mru = scenario.set("policies.eviction", "my_policy.py:MRU").run(check=True).summary
    lru = scenario.run().summary
    assert mru["prefix"]["hit_tokens"]["hbm"] < lru["prefix"]["hit_tokens"]["hbm"]


def test_the_error_is_what_is_printed(tmp_path):
    shown = re.search(r"```\n(error: .*)\n```", README)
    assert shown is not None
    (tmp_path / "scenario.yaml").write_text((ROOT / "examples" / "quickstart.yaml").read_text())
    command = [sys.executable, "-m", "kvsim", "run", "scenario.yaml", "--set", "policies.eviction=lruu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == shown[1]


def test_the_output_is_what_is_printed(tmp_path):
    start = README.index("## What `make demo` prints")
    begin = README.index("```\n", start) + 4
    shown = README[begin : README.index("\n```", begin)].splitlines()
    command = [sys.executable, "-m", "kvsim", "run", str(ROOT / "examples" / "quickstart.yaml"), "--out", "quickstart"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    printed = [line.removeprefix(" ") for line in done.stdout.splitlines() if line]
    assert printed[:-1] == [line for line in shown if line][:-1]


def test_the_pictures_exist():
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / path).stat().st_size > 10_000 for path in pictures)
