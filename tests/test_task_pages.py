"""The task pages are true: what they print is what comes out; the glossary is the simulator's; links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from reports.glossary import GROUP_TITLES, markdown
from sim.fields import GROUPS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a copy of the quickstart scenario, which the pages start from."""
    (tmp_path / "quickstart.yaml").write_text((ROOT / "examples" / "quickstart.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path


def call(*command: str) -> list[str]:
    """Lines that a command prints, less trailing blanks."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    return [line.rstrip() for line in done.stdout.splitlines()]


def test_the_glossary_is_that_of_the_simulator() -> None:
    assert set(GROUP_TITLES) == set(GROUPS)
    assert (DOCS / "glossary.md").read_text() == markdown()


def test_the_notebook_page_prints_what_it_says(folder: Path) -> None:
    code, shown = re.search(
        r"```python\n(.*?)```\n\n```\n(.*?)```", (DOCS / "notebook.md").read_text(), re.DOTALL
    ).groups()
    assert call("-c", code) == shown.splitlines()


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    headings: dict[Path, set[str]] = {}
    for target, anchor in re.findall(r"\]\((?!http)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            text = headings.setdefault(
                there, {slug(line) for line in there.read_text().splitlines() if line[:1] == "#"}
            )
            assert anchor in text, f"{target}#{anchor}"


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")
