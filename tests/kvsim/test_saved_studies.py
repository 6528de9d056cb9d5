"""Comparisons, sweeps, plans and cache studies read back: figures of their pages, numbers of their files."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import kvsim as package
from kvsim.cli.main import run
from reports.notebook import COLOR_KEYS

SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 60, rate: 4, turns: 2, first_tokens: {mean: 2000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm, replicas: 2}
tiers: [{name: hbm}, {name: dram, capacity: 64 GiB, shared: node}]
slo: {ttft_p99: 30s}
"""
SWEEP = (
    "schema: kvsim-sweep/1\nscenario: small.yaml\nvary: {tiers.dram.capacity: [4 GiB, 8 GiB], routing: [round_robin]}\n"
)
CALLS = {
    "comparison": ("compare", "small.yaml", "--vary", "hardware.replicas=1,2", "--seeds", "1", "--workers", "1"),
    "sweep": ("sweep", "sweep.yaml", "--workers", "1"),
    "plan": ("plan", "small.yaml", "--find", "replicas", "--among", "1,2", "--seeds", "2", "--workers", "1"),
    "cache study": ("cache", "quickstart", "--policy", "lru,fifo", "--capacity", "100ktok,unbounded"),
    "regret": ("cache", "small.yaml", "--policy", "lru,fifo", "--set", "engine.num_gpu_blocks=600"),
}
PAGES = {"comparison": "compare", "sweep": "sweep", "plan": "plan", "cache study": "cache", "regret": "cache"}
DATA = re.compile(r'<script type="application/json" id="([\w-]+)-data"[^>]*>(.*?)</script>', re.DOTALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of every kind, each in a folder of its name."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "small.yaml").write_text(SCENARIO)
    (folder / "sweep.yaml").write_text(SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, call in CALLS.items():
            assert run([*call, "--out", kind, "--json"]) == 0
    return folder


def without_colors(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: without_colors(value) for key, value in node.items() if key not in COLOR_KEYS}
    return [without_colors(value) for value in node] if isinstance(node, list) else node


@pytest.mark.parametrize("kind", CALLS)
def test_the_figures_are_those_of_the_page(kind: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    study = package.load(kind)
    monkeypatch.chdir("/")
    assert isinstance(study, package.SavedStudy)
    assert study.kind == ("cache study" if kind == "regret" else kind)
    page = (made / kind / f"{PAGES[kind]}.html").read_text("utf-8")
    on_page = {key: json.loads(text)["data"] for key, text in DATA.findall(page)}
    drawn = {key: json.loads(figure.to_json())["data"] for key, figure in study.figures.items() if figure.data}
    first = {
        re.sub(r"(-0)+$", "", key) for key in on_page
    }  # what a figure with menus shows at first has its name alone
    assert {key for key in drawn if not re.search(r"-\d+$", key)} <= first
    assert len(drawn) == len(on_page) > 0
    for (key, mine), shown in zip(drawn.items(), on_page.values(), strict=True):
        assert without_colors(mine) == without_colors(shown), key


def document(made: Path, kind: str) -> Any:
    return json.loads((made / kind / f"{PAGES[kind]}.json").read_text())


def test_a_comparison_has_values_differences_and_runs(made: Path) -> None:
    study, said = package.load(made / "comparison"), document(made, "comparison")
    metrics = study.frames["metrics"].set_index(["key", "variant"])
    for metric in said["metrics"]:
        for label, value in metric["values"].items():
            row = metrics.loc[(metric["key"], label)]
            assert row.value == value or (pd.isna(row.value) and value is None)
            found = metric["differences"].get(label)
            assert (None if pd.isna(row.difference) else row.difference) == (found and found["value"])
    assert list(study.frames["variants"]["label"]) == list(study.runs) == ["replicas=1", "replicas=2"]
    for label, one in study.runs.items():
        assert metrics.loc[("ttft_p99_ms", label)].value == one.summary["ttft_ms"]["p99"]


def test_a_sweep_has_what_varies_and_what_came_of_it(made: Path) -> None:
    study = package.load(made / "sweep")
    runs, rows = study.frames["runs"], pd.read_parquet(made / "sweep" / "sweep.parquet")
    assert list(runs["tiers.dram.capacity"]) == [4 * 2**30, 8 * 2**30]
    assert list(runs["routing"]) == ["round_robin"] * 2
    assert list(runs["config_sha256"]) == list(rows["config_sha256"])
    shared = set(study.frames["metrics"]["key"]) & set(rows.columns)
    assert {"ttft_p99_ms", "hit_ratio"} <= shared
    for key in shared:
        assert list(runs[key]) == list(rows[key]), key


def test_a_plan_has_every_run_with_targets_and_costs(made: Path) -> None:
    study, said = package.load(made / "plan"), document(made, "plan")
    [plan] = said["plans"]
    runs = study.frames["runs"]
    assert list(runs["shown"]) == [point["shown"] for point in plan["points"]] == ["1", "2"]
    assert list(runs["ttft_p99_ms"].dropna()) == [
        point["targets"]["ttft_p99"]["value_ms"]
        for point in plan["points"]
        if point["targets"]["ttft_p99"]["value_ms"] is not None
    ]
    assert set(runs["ttft_p99_limit_ms"]) == {30_000.0}
    assert list(runs["cost_total"]) == [point["cost"]["total"] for point in plan["points"]]
    assert study.frames["answers"].iloc[0]["shown"] == plan["answer"]["shown"]
    assert list(study.frames["seeds"]["seed"]) == [s for check in plan["seeds"] for s in check["seeds"]] != []


def test_cache_studies_have_their_rows(made: Path) -> None:
    rows = package.load(made / "cache study").frames["rows"]
    said = document(made, "cache study")
    assert rows.to_dict("records")[0] == said[0]
    assert len(rows) == len(said) == 4
    frames, regret = package.load(made / "regret").frames, document(made, "regret")
    assert list(frames["policies"]["regret"]) == [row["regret"] for row in regret["policies"]]
    assert list(frames["policies"]["hit_dram_tokens"]) == [row["hit_tokens"]["dram"] for row in regret["policies"]]
    assert list(frames["tiers"]["name"]) == ["hbm", "dram"]
    assert list(frames["bound"]["seconds"]) == [step["seconds"] for step in regret["bound"]["steps"]]


@pytest.mark.parametrize("kind", CALLS)
def test_another_version_is_one_line(kind: str, made: Path, tmp_path: Path) -> None:
    said = document(made, kind)
    if isinstance(said, list):
        (tmp_path / "cache.json").write_text(json.dumps(said))
        (tmp_path / "study.json").write_text('{"schema": "kvsim-cache/0"}')
    else:
        (tmp_path / f"{PAGES[kind]}.json").write_text(json.dumps(said | {"schema": "kvsim-other/7"}))
    with pytest.raises(package.InputError, match="written by another version of kvsim: make it again") as caught:
        package.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("text", ["{", "3", "{}", "[]"])
def test_a_broken_document_is_one_line(kind: str, text: str, tmp_path: Path) -> None:
    (tmp_path / f"{PAGES[kind]}.json").write_text(text)
    with pytest.raises(package.InputError) as caught:
        package.load(tmp_path)
    assert "\n" not in str(caught.value)
