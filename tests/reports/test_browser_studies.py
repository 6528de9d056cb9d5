"""Comparisons, sweeps and plans in a real browser: menus, filters, sorting, legends and hovers do what they say."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from kvsim.cli.main import run
from reports.kinds import write_report

pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install -e '.[test]')")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver (make test-tools)"),
]
SCENARIO = """\
schema: kvsim-scenario/1
trace: {generate: {requests: 40, rate: 8, turns: 2, first_tokens: {mean: 3000, sigma: 1}}}
model: llama-3.1-8b
hardware: {profile: h100-sxm}
engine: {num_gpu_blocks: 4000}
tiers: [{name: hbm}, {name: dram, capacity: 64 GiB, shared: node}]
slo: {ttft_p99: 1200ms, tpot_p95: 30ms}
"""
SWEEP = """\
schema: kvsim-sweep/1
scenario: small.yaml
vary:
  tiers.dram.capacity: [0 B, 64 GiB]
  hardware.replicas: [1, 2, 3]
  engine.num_gpu_blocks: [4000, 900000000]
"""
NASTY = "<img src=x onerror='window.pwned=1'></script><script>window.pwned=2</script><b>b</b>"
KINDS = ("compare", "sweep", "plan")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, made by its verb from a small scenario."""
    top = tmp_path_factory.mktemp("studies")
    (top / "small.yaml").write_text(SCENARIO)
    (top / "sweep.yaml").write_text(SWEEP)
    small, one = str(top / "small.yaml"), ("--workers", "1")
    vary = ("--vary", "policies.eviction=lru,s3fifo,belady")
    assert run(["compare", small, *vary, "--seeds", "1", *one, "--out", str(top / "c")]) == 0
    assert run(["sweep", str(top / "sweep.yaml"), *one, "--out", str(top / "s")]) == 0
    among = ("--find", "replicas", "--among", "1,2,3,4", "--vary", "tiers.dram.capacity=0 B,64 GiB", "--seeds", "2")
    assert run(["plan", small, *among, *one, "--out", str(top / "p")]) == 0
    found = {"compare": top / "c" / "compare.html", "sweep": top / "s" / "sweep.html", "plan": top / "p" / "plan.html"}
    assert all(path.is_file() for path in found.values())
    return found


def choose(browser: Any, figure: str, menu: int, option: int) -> None:
    """Choose an option of a figure's menu as a reader does, and wait for the drawing."""
    browser.execute_script(
        "const select = document.querySelectorAll(arguments[0] + ' select')[arguments[1]];"
        "select.value = String(arguments[2]); select.dispatchEvent(new Event('change', {bubbles: true}))",
        f"#{figure}",
        menu,
        option,
    )


def drawn(browser: Any, figure: str) -> list[str]:
    """Names of the traces that a figure shows."""
    found: list[str] = browser.execute_script(
        "return document.querySelector(arguments[0] + ' .chart').data.map(t => t.name || t.type)", f"#{figure}"
    )
    return found


def rows(browser: Any) -> list[list[str]]:
    """Cells of the rows of the sweep's table that are shown, in their order."""
    found: list[list[str]] = browser.execute_script(
        "return [...document.querySelectorAll('#run-table tbody tr')].filter(r => !r.hidden)"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_renders_and_nothing_overflows(
    browser: Any, open_page: Any, pages: dict[str, Path], kind: str, width: int, theme: str
) -> None:
    open_page(pages[kind], width, theme)
    assert browser.get_log("browser") == []
    empty = browser.execute_script(
        "return [...document.querySelectorAll('.chart')].filter(p => !p.querySelector("
        "'svg.main-svg .trace path, svg.main-svg .hm image')).map(p => p.dataset.figure)"
    )
    assert empty == []
    assert browser.execute_script("return document.querySelectorAll('.chart').length") >= 3
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    outside = browser.execute_script(
        "return [...document.querySelectorAll('figure, .tiles li, .verdict, h1, .menus, select, .items')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_of_every_menu_draws_without_an_error(
    browser: Any, open_page: Any, pages: dict[str, Path], kind: str
) -> None:
    open_page(pages[kind])
    figures = browser.execute_script("return [...document.querySelectorAll('.menus')].map(m => m.dataset.of)")
    assert figures
    for figure in figures:
        counts = browser.execute_script(
            "return [...document.querySelectorAll(arguments[0] + ' select')].map(s => s.options.length)", f"#{figure}"
        )
        before = drawn(browser, figure)
        assert before
        for menu, count in enumerate(counts):
            for option in [*range(count), 0]:
                choose(browser, figure, menu, option)
                said = browser.execute_script(f"return document.querySelector('#{figure} .finding').textContent")
                assert said or figure == "links"
        assert drawn(browser, figure) == before
    assert browser.get_log("browser") == []


def test_a_menu_changes_figure_words_and_list(browser: Any, open_page: Any, pages: dict[str, Path]) -> None:
    open_page(pages["sweep"])
    ask = (
        "const f = document.querySelector('#pareto'); return [f.querySelector('.ytitle').textContent,"
        "f.querySelector('.finding').textContent, f.querySelectorAll('.items li').length,"
        "f.querySelector('.chart').getAttribute('aria-label')]"
    )
    title, _, _, _ = browser.execute_script(ask)
    choose(browser, "pareto", 1, 2)
    other, said, items, label = browser.execute_script(ask)
    assert other != title
    assert said.startswith(f"{items} of 6 runs are on the front")
    assert label.endswith(said)


def test_the_table_filters_and_sorts(browser: Any, open_page: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By

    open_page(pages["sweep"])
    heads = browser.execute_script(
        "return [...document.querySelectorAll('#run-table thead tr:first-child th')].map(h => h.textContent)"
    )
    at = {name: place for place, name in enumerate(heads)}
    inputs = browser.find_elements(By.CSS_SELECTOR, "#run-table .filters input")
    assert len(inputs) == len(heads)
    assert len(rows(browser)) == 12
    for column, text, test in (
        ("replicas", ">=2", lambda cell: int(cell) >= 2),
        ("replicas", "1..2", lambda cell: int(cell) <= 2),
        ("replicas", "= 3", lambda cell: cell == "3"),
        ("SLO", "fail", lambda cell: cell == "failed"),
        ("SLO", "MET", lambda cell: cell == "met"),
    ):
        inputs[at[column]].send_keys(text)
        found = rows(browser)
        assert 0 < len(found) < 12, (column, text)
        assert all(test(row[at[column]]) for row in found)
        count = browser.execute_script("return document.querySelector('#run-table .count').textContent")
        assert count == f"{len(found)} of 12 rows"
        inputs[at[column]].clear()
        browser.execute_script("arguments[0].dispatchEvent(new Event('input'))", inputs[at[column]])
    assert len(rows(browser)) == 12
    ttft = next(place for name, place in at.items() if name.startswith("TTFT, P99"))
    button = browser.find_elements(By.CSS_SELECTOR, "#run-table thead th button")[ttft]
    for down in (False, True):
        button.send_keys("\n")  # the keyboard presses it, too
        shown = [row[ttft] for row in rows(browser)]
        numbers = [float(cell.replace(",", "")) for cell in shown if cell != "–"]
        assert len(numbers) == 6
        assert numbers == sorted(numbers, reverse=down)
        assert shown[6:] == ["–"] * 6  # what has no number comes last both ways
    state = browser.execute_script(
        "return document.querySelectorAll('#run-table thead th')[arguments[0]].ariaSort", ttft
    )
    assert state == "descending"
    assert browser.get_log("browser") == []


def test_a_legend_hides_and_a_hover_tells(browser: Any, open_page: Any, pages: dict[str, Path]) -> None:
    open_page(pages["compare"])
    browser.execute_script("document.querySelector('#cdf-ttft').scrollIntoView({block: 'center'})")
    browser.execute_script(
        "const t = document.querySelector('#cdf-ttft .legendtoggle');"
        "for (const e of ['mousedown', 'mouseup']) t.dispatchEvent(new MouseEvent(e, {bubbles: true}))"
    )
    deadline = time.monotonic() + 120
    hidden = "return document.querySelector('#cdf-ttft .chart').data[0].visible"
    while browser.execute_script(hidden) != "legendonly":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    open_page(pages["sweep"])
    browser.execute_script(
        "const p = document.querySelector('#pareto .chart'); Plotly.Fx.hover(p, [{curveNumber: 0, pointNumber: 0}])"
    )
    said = browser.execute_script("return document.querySelector('#pareto .hoverlayer').textContent")
    assert "TTFT, P99" in said
    assert "replicas=" in said
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_keyboard_reaches_menus_and_tables(browser: Any, open_page: Any, pages: dict[str, Path], kind: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(pages[kind])
    seen = set()
    for _ in range(45):
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
        seen.add(browser.execute_script("return document.activeElement.tagName"))
        seen.add(browser.execute_script("return document.activeElement.className"))
    assert {"A", "SELECT", "scroll"} <= seen


def test_markup_in_names_is_text(browser: Any, open_page: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    sweep = json.loads((pages["sweep"].parent / "sweep.json").read_text())
    for one in sweep["runs"]:
        one["label"] += NASTY
        one["values"]["hardware.replicas"] += NASTY
        one["error"] = one["error"] and NASTY
    sweep["axes"][1] |= {"label": NASTY, "numeric": False}
    sweep["name"] = NASTY
    plan = json.loads((pages["plan"].parent / "plan.json").read_text())
    for one in plan["plans"]:
        one["path"] = one["what"] = NASTY
        for point in (*one["points"], one["answer"], *one["seeds"]):
            point["shown"] += NASTY
    compare = (pages["compare"].parent / "compare.json").read_text().replace('"s3fifo"', json.dumps(NASTY))
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    shutil.copytree(pages["compare"].parent, tmp_path / "c")
    (tmp_path / "c" / "compare.json").write_text(compare)
    written = (write_report(tmp_path), write_report(tmp_path), write_report(tmp_path / "c"))
    for page in written:
        open_page(page)
        for figure in browser.execute_script("return [...document.querySelectorAll('.menus')].map(m => m.dataset.of)"):
            choose(browser, figure, 0, 0)
        assert browser.get_log("browser") == []
        assert browser.execute_script("return window.pwned === undefined")
        assert browser.execute_script("return document.querySelectorAll('main img, main b, svg b').length") == 0
        assert NASTY in browser.execute_script("return document.querySelector('main').textContent")
        assert browser.execute_script("return document.documentElement.scrollWidth") == 1280


@pytest.mark.parametrize("kind", KINDS)
def test_prints_on_the_width_of_a_sheet(browser: Any, open_page: Any, pages: dict[str, Path], kind: str) -> None:
    open_page(pages[kind], 688)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    time.sleep(0.3)
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.menus, .filters, nav')].filter(e => e.offsetHeight).length"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == 0
