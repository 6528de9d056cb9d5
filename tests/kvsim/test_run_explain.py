"""`kvsim run --explain`: the file, the line, the report; `kvsim report` makes it again."""

import json
from pathlib import Path

import pytest

from kvsim.cli.main import run

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
FEW = ("--set", "trace.limit=60", "--set", "tiers=[{name: hbm}]", "--workers", "1")


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    out = tmp_path_factory.mktemp("explain") / "run"
    assert run(["run", str(EXAMPLE), *FEW, "--explain", "--explain-requests", "30", "--out", str(out), "--quiet"]) == 0
    return out


def test_the_run_directory_has_the_study_and_the_report_shows_it(explained):
    study = json.loads((explained / "explain.json").read_text())
    assert (study["requests"], study["of"]) == (30, 60)
    assert study["config_sha256"] == json.loads((explained / "summary.json").read_text())["config_sha256"]
    page = (explained / "report.html").read_text()
    assert 'id="tornado-0"' in page
    assert "--explain-requests takes more" in page


def test_the_report_is_made_again_from_the_directory(explained, capsys):
    page = (explained / "report.html").read_bytes()
    assert run(["report", str(explained)]) == 0
    assert (explained / "report.html").read_bytes() == page


def test_a_new_run_without_it_leaves_no_old_study(explained, capsys):
    assert run(["run", str(EXAMPLE), *FEW, "--out", str(explained), "--quiet"]) == 0
    assert not (explained / "explain.json").exists()
    page = (explained / "report.html").read_text()
    assert 'id="tornado-0"' not in page
    assert "kvsim run SCENARIO --explain" in page
