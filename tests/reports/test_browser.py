"""The report in a real browser, without a network: it renders, fits, and runs no script from data."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from reports.kinds import write_report
from reports.reproduce_report import write_reproduce_report
from sim.cache.regret import run_regret
from sim.cache.save_regret import save_regret
from sim.reproduce.harness import reproduce
from sim.reproduce.systems import tables_of
from sim.scenario import Scenario
from tests.reports.browser_cases import draws, fits

pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install -e '.[test]')")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (make test-tools)"),
]

NASTY = "<img src=x onerror='window.pwned=1'></script><script>window.pwned=2</script>"
TIER = "<b>tier</b>&amp;"


@pytest.fixture(scope="module")
def page(shared_run: Path, make_study: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything: what would move it too."""
    run_dir = tmp_path_factory.mktemp("browser") / "run"
    shutil.copytree(shared_run, run_dir)
    digest = json.loads((run_dir / "summary.json").read_text())["config_sha256"]
    (run_dir / "explain.json").write_text(json.dumps(make_study(digest)))
    return write_report(run_dir)


@pytest.fixture(scope="module")
def nasty_page(make_run_dir: Any, make_study: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose names carry markup, in the text of the page and in the labels of figures."""
    run_dir = make_run_dir(tmp_path_factory.mktemp("nasty"), n=200, replicas=2, span=100, steps=30)
    import pyarrow.parquet as pq

    path = run_dir / "summary.json"
    summary = json.loads(path.read_text())
    summary |= {"trace": {"name": NASTY}, "model": {"name": NASTY}, "warnings": [NASTY], "assumptions": [NASTY]}
    summary["profile"]["name"] = NASTY
    summary["tiers"][TIER] = summary["tiers"].pop("dram")
    summary["prefix"]["hit_tokens"][TIER] = summary["prefix"]["hit_tokens"].pop("dram")
    path.write_text(json.dumps(summary))
    text = json.dumps(make_study(summary["config_sha256"]))
    for name in ("wheel", "lever", "TTFT, P99", "does not fit", "Much."):
        text = text.replace(json.dumps(name), json.dumps(f"{name} {TIER} {NASTY}"))
    (run_dir / "explain.json").write_text(text)
    table = pq.read_table(run_dir / "requests.parquet")
    renamed = [f"hit_{TIER}_tokens" if n == "hit_dram_tokens" else n for n in table.column_names]
    pq.write_table(table.rename_columns(renamed), run_dir / "requests.parquet")
    moved = pq.read_table(run_dir / "transfers.parquet")
    for name in ("src", "dst"):
        ends = [TIER if end == "dram" else end for end in moved[name].to_pylist()]
        moved = moved.set_column(moved.column_names.index(name), name, [ends])
    pq.write_table(moved, run_dir / "transfers.parquet")
    return write_report(run_dir)


@pytest.fixture(scope="module")
def regret_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    document = {
        "schema": "kvsim-scenario/1",
        "trace": "quickstart",
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "engine": {"num_gpu_blocks": 4000},
        "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "30 GiB"}],
    }
    study = run_regret(Scenario.from_dict(document), ["scenario", {"name": "s3fifo", "small_ratio": 0.25}])
    folder = tmp_path_factory.mktemp("regret")
    save_regret(study, folder)
    return write_report(folder)


@pytest.fixture(scope="module")
def reproduce_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    verdicts = reproduce(tables_of(["mla", "lckv"]), workers=1)
    return write_reproduce_report(verdicts, tmp_path_factory.mktemp("reproduce"), "0")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_renders_and_nothing_overflows(
    browser: Any, open_page: Any, page: Path, width: int, theme: str
) -> None:
    open_page(page, width, theme)
    draws(browser, 24)
    fits(browser, width)
    outside = browser.execute_script(
        "return [...document.querySelectorAll('.chart svg.main-svg')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_regrets_renders_and_fits(
    browser: Any, open_page: Any, regret_page: Path, width: int, theme: str
) -> None:
    open_page(regret_page, width, theme)
    draws(browser, 2)
    drawn = browser.execute_script("return document.querySelectorAll('.chart svg.main-svg .trace path').length")
    assert drawn >= 8
    fits(browser, width)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_published_figures_renders_and_fits(
    browser: Any, open_page: Any, reproduce_page: Path, width: int
) -> None:
    open_page(reproduce_page, width)
    draws(browser, 2)
    heights = browser.execute_script("return [...document.querySelectorAll('.chart')].map(p => p.clientHeight)")
    assert max(heights) > 2 * min(heights)  # a figure with many rows is as tall as they need
    fits(browser, width)


def test_markup_in_names_is_text_and_no_script_of_theirs_runs(browser: Any, open_page: Any, nasty_page: Path) -> None:
    open_page(nasty_page)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.pwned === undefined")
    assert browser.execute_script("return document.querySelectorAll('main img').length") == 0
    heading = browser.execute_script("return document.querySelector('h1').textContent")
    assert heading.count(NASTY) == 3
    legend = browser.execute_script("return document.querySelector('#hit-ratio .legend').textContent")
    assert TIER in legend
    flow = browser.execute_script("return document.querySelector('#byte-flow .sankey').textContent")
    assert TIER in flow
    moved = browser.execute_script("return document.querySelector('#tornado-0').textContent")
    assert f"wheel {TIER} {NASTY}" in moved
    assert browser.execute_script("return document.querySelectorAll('#limits b, #limits img').length") == 0
    assert browser.execute_script("return document.querySelectorAll('#slowest-ttft-table b, #reuse b').length") == 0


def test_the_policy_of_the_page_stops_a_script_that_is_not_ours(
    browser: Any, open_page: Any, page: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text("utf-8").replace("</main>", "<script>window.pwned = 3</script></main>"), "utf-8")
    open_page(changed)
    assert browser.execute_script("return window.pwned === undefined")
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_sections_open_from_the_contents_and_tell_what_they_show(browser: Any, open_page: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By

    open_page(page)
    for section in ("limits", "latency", "slowest", "load", "flow"):
        browser.find_element(By.CSS_SELECTOR, f"nav a[href='#{section}']").click()
        top = browser.execute_script(f"return document.getElementById('{section}').getBoundingClientRect().top")
        assert -1 <= top <= 120
    for figure in ("tornado-0", "slowest-ttft", "goodput", "interactivity", "byte-flow", "never-loaded", "hbm-budget"):
        said = browser.execute_script(f"return document.querySelector('#{figure} .chart').getAttribute('aria-label')")
        assert len(said) > 20
    bands = browser.execute_script("return document.querySelectorAll('#byte-flow path.sankey-link').length")
    assert bands >= 4
    assert browser.get_log("browser") == []


def test_figures_follow_the_theme(browser: Any, open_page: Any, page: Path) -> None:
    open_page(page, theme="light")
    ask = "return getComputedStyle(document.querySelector('#hit-ratio .legendtext')).fill"
    light = browser.execute_script(ask)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    deadline = time.monotonic() + 120
    while browser.execute_script(ask) == light:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_resize_fits_the_figures_again(browser: Any, open_page: Any, page: Path) -> None:
    open_page(page, 1280)
    size = {"width": 700, "height": 850, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    fits = "p => p.querySelector('svg').clientWidth === p.clientWidth"
    ask = f"return [...document.querySelectorAll('.chart')].every({fits})"
    deadline = time.monotonic() + 120
    while not browser.execute_script(ask):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 700


def test_the_keyboard_reaches_links_and_tables(browser: Any, open_page: Any, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(page)
    focused = "var e = document.activeElement; return e.className + ' ' + (e.getAttribute('href') || e.ariaLabel)"
    seen = []
    for _ in range(25):
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
        seen.append(browser.execute_script(focused))
    assert seen[0] == "skip #main"
    assert " #limits" in seen
    assert " #latency" in seen
    assert "scroll Metrics" in seen


def test_prints_everything_that_is_folded_on_the_width_of_a_sheet(browser: Any, open_page: Any, page: Path) -> None:
    open_page(page, 688)  # A4 less 14 mm on both sides, at 96 px per inch
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    deadline = time.monotonic() + 120
    while browser.execute_script("return document.querySelectorAll('details:not([open])').length"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    wide = browser.execute_script(
        "return [...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > innerWidth + 0.5)"
        ".map(t => t.parentNode.id || t.closest('.sheet, section').id)"
    )
    assert wide == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    while not browser.execute_script("return document.querySelectorAll('details:not([open])').length"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_with_a_mouse_figures_offer_a_picture_and_a_reset_and_no_upload(
    browser: Any, open_page: Any, page: Path
) -> None:
    mouse = "var ask = matchMedia; matchMedia = q => /hover/.test(q) ? {matches: true} : ask.call(window, q);"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": mouse})
    open_page(page)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    buttons = browser.execute_script(
        "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title || b.ariaLabel)"
    )
    assert len(buttons) == 2 * browser.execute_script("return document.querySelectorAll('.chart').length")
    assert set(buttons) == {"Download plot as a PNG", "Reset axes"}
