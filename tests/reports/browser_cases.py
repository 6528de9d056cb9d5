"""What the page of a run must do in a browser: draw its figures, fit the window, log nothing."""

from __future__ import annotations

from typing import Any

PARTS = "figure, .tiles li, .verdict, h1, .sheet .scroll"
OUTSIDE = (
    f"return [...document.querySelectorAll('{PARTS}')]"
    ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"
)
TWICE = (
    "const ids = [...document.querySelectorAll('[id]')].map(e => e.id);"
    "return ids.filter((id, i) => ids.indexOf(id) < i)"
)
MARKS = "svg.main-svg .trace path, svg.main-svg path.sankey-link"
UNDRAWN = (
    f"return [...document.querySelectorAll('.chart')].filter(p => !p.querySelector('{MARKS}'))"
    ".map(p => p.dataset.figure)"
)


def fits(browser: Any, width: int) -> None:
    """Nothing was logged; with all that unfolds open, the page is as wide as the window; no id is there twice."""
    assert browser.get_log("browser") == []
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    assert browser.execute_script(OUTSIDE) == []
    assert browser.execute_script(TWICE) == []


def draws(browser: Any, least: int) -> None:
    """So many figures at least, and something in each."""
    assert browser.execute_script(UNDRAWN) == []
    assert browser.execute_script("return document.querySelectorAll('.chart').length") >= least
