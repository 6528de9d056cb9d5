"""In a browser: runs with the sections that only some runs have, and the pages of cache studies and of profiles."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from calibration.compare import compare
from reports.kinds import write_report
from reports.profiles_report import write_profiles_report
from sim.cache.save import save_study
from sim.cache.study import run_study
from sim.run import simulate
from sim.scenario import Scenario
from tests.reports.browser_cases import fits
from traces.catalog import load_trace

pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install -e '.[test]')")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not ((shutil.which("chromium") or shutil.which("chromium-browser")) and shutil.which("chromedriver")),
        reason="no chromium and chromedriver (make test-tools)",
    ),
]

NASTY = "<img src=x onerror='window.pwned=1'></script><script>window.pwned=2</script>"
BASE = {
    "schema": "kvsim-scenario/1",
    "model": "llama-3.1-8b",
    "trace": {"generate": {"requests": 60, "rate": 8, "turns": 2}},
    "hardware": {"profile": "h100-sxm", "replicas": 2},
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "4 GiB", "shared": "node"}],
    "slo": {"ttft_p99": "2 s"},
}
CLIENTS = {"clients": 6, "rounds": 3, "input_tokens": 300, "output_tokens": 20, "block_tokens": 16}
SCALED = {"scaling": {"name": "target_utilization", "requests": 4}, "min": 0, "start_time": "3 s"}
MODELS = {"scaling": "target_utilization", "min": 0, "models": ["llama-3.1-8b", "qwen2.5-7b"]}
POOLS = {"prefill": 1, "decode": 1, "transfer": "layer", "link": {"bandwidth": "10 GB/s"}}
HBM = [{"name": "hbm"}]
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "fleet": ("fleet", {"fleet": SCALED}),
    "models": ("fleet", {"fleet": MODELS, "engine": {"prefix_caching": False}, "tiers": HBM}),
    "disaggregation": ("disaggregation", {"disaggregation": POOLS, "tiers": HBM}),
    "speculation": ("speculation", {"engine": {"speculation": {"method": "ngram", "tokens": 3, "acceptance": 0.7}}}),
    "rounds": ("rounds", {"trace": {"clients": CLIENTS}}),
    "within": ("within", {"policies": "arkvale", "engine": {"prefix_caching": False}, "tiers": HBM}),
    "prefetch": ("prefetch", {"policies": {"prefetch": "next_turn"}}),
    "answers": ("response_cache", {"policies": {"reuse": ["instcache", "metadata_index"]}}),
}
"""Of each feature: the id of what the page has because of it, and what the scenario says beside BASE."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("panels")


@pytest.fixture(scope="module")
def made(folder: Path) -> Any:
    """Run directories by feature, each simulated once."""

    def make(name: str) -> Path:
        if not (folder / name).exists():
            simulate(Scenario.from_dict({**BASE, **RUNS[name][1]})).save(folder / name)
        return folder / name

    return make


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_each_feature_shows_it_and_fits(browser: Any, open_page: Any, made: Any, name: str) -> None:
    page = write_report(made(name))
    for width, theme in ((1280, "light"), (390, "dark")):
        open_page(page, width, theme)
        section = browser.execute_script("return document.getElementById(arguments[0])?.textContent", RUNS[name][0])
        assert section
        for nothing in ("None", "nan", "undefined", "NaN"):
            assert nothing not in section.split()
        fits(browser, width)


def test_markup_in_the_names_of_features_is_text(browser: Any, open_page: Any, made: Any, tmp_path: Path) -> None:
    for name, keys in (
        ("models", ("fleet.scaling", "fleet.models.0.name", "fleet.prewarm.policy")),
        ("disaggregation", ("disaggregation.link",)),
        ("speculation", ("speculation.method", "speculation.model")),
        ("within", ("within.policies.0.name", "within.assumptions.0")),
        ("answers", ("response_cache.caches.0.name",)),
    ):
        run_dir = shutil.copytree(made(name), tmp_path / name)
        summary = json.loads((run_dir / "summary.json").read_text())
        for key in keys:
            *path, last = key.split(".")
            at: Any = summary
            for step in path:
                at = at[int(step)] if isinstance(at, list) else at[step]
            at[int(last) if isinstance(at, list) else last] = NASTY
        if name == "speculation":
            summary["speculation"] |= {"draft_s": 1.0, "weight_bytes": 1, "kv_bytes_per_token": 1}
        (run_dir / "summary.json").write_text(json.dumps(summary))
        open_page(write_report(run_dir))
        assert browser.get_log("browser") == []
        assert browser.execute_script("return window.pwned === undefined")
        text = browser.execute_script("return document.getElementById(arguments[0]).textContent", RUNS[name][0])
        assert text.count(NASTY) >= len(keys)
        assert browser.execute_script("return document.querySelectorAll('main img').length") == 0


@pytest.mark.parametrize("kind", ["cache", "profiles"])
def test_the_pages_of_studies_and_profiles_draw_and_fit(browser: Any, open_page: Any, folder: Path, kind: str) -> None:
    if kind == "cache":
        save_study(run_study(load_trace("quickstart"), ["lru", "s3fifo"], [100_000, None]), folder)
        page = write_report(folder)
    else:
        page = write_profiles_report(compare(["rtx-4090", "h20"]), folder)
    for width, theme in ((1280, "light"), (390, "dark")):
        open_page(page, width, theme)
        empty = browser.execute_script(
            "return [...document.querySelectorAll('.chart')]"
            ".filter(p => !p.querySelector('svg.main-svg .trace path, canvas')).map(p => p.dataset.figure)"
        )
        assert empty == []
        fits(browser, width)
