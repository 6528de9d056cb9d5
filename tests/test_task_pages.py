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


def steps(text: str) -> list[tuple[str, list[str]]]:
    """What the reader does, in order: a file to write (name, lines), or a "$ command" and what it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for language, block in re.findall(r"^```(python|yaml|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        first, *lines = block.splitlines()
        if language != "console" and first.startswith("# "):
            found.append((first.removeprefix("# "), lines))
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:] if language == "console" else ():
            command, *said = part.splitlines()
            found.append((f"$ {command}", said))
    return found


def printed(command: str) -> list[str]:
    """Lines that a command of a page prints, without the time that tests took."""
    word, _, rest = command.partition(" ")
    words = {"kvsim": "-m kvsim", "pytest": "-m pytest -p no:cacheprovider", "python": ""}
    shell = f"{sys.executable} {words[word]} {rest}"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert not done.stderr.startswith("error"), done.stderr
    return [plain(line) for line in done.stdout.splitlines() if line.strip()]


def plain(line: str) -> str:
    """A line with common blanks, and without the time that tests took and the width of the window."""
    line = line.replace("\u00a0", " ")
    return re.sub(r"passed in [\d.]+s.*", "passed", re.sub(r"\.+ +\[100%\]", "[100%]", line.rstrip()))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["how-much-dram", "read-the-report", "extend", "notebook", "reproduce"])
def test_the_page_prints_what_it_says(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of the page is written and every command run, in the order of the text; "..." stands for any lines."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("KVSIM_WORKERS", "2")
    done = 0
    for what, lines in steps((DOCS / f"{page}.md").read_text()):
        if not what.startswith("$ "):
            (folder / what).write_text("\n".join(lines) + "\n")
            continue
        found = "".join(f"{line}\n" for line in printed(what.removeprefix("$ ")))
        said = (r"(?:.*\n)*" if line == "..." else re.escape(plain(line)) + "\n" for line in lines if line.strip())
        assert re.fullmatch("".join(said), found), f"{what}\n{found}"
        done += 1
    assert done


def test_every_section_of_the_report_is_explained(folder: Path) -> None:
    done = call("-m", "kvsim", "run", "quickstart.yaml", "--set", "trace.limit=50", "--out", "run", "--quiet")
    page = (folder / "run" / "report.html").read_text()
    explained = (DOCS / "read-the-report.md").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert done
    assert len(titles) > 8
    assert [title for title in titles if not re.search(rf"^\| [^|]*\b{title}\b", explained, re.MULTILINE)] == []


def test_accuracy_gives_the_counts_of_the_pages_that_it_sums_up() -> None:
    text = (DOCS / "accuracy.md").read_text()
    for page, line in (
        ("reproduce.md", r"^Met: (reproduced .*)\.$"),
        ("profiles.md", r"^(\d+ of \d+) targets are met"),
    ):
        found = re.search(line, (DOCS / page).read_text(), re.MULTILINE)
        assert found is not None
        assert f"| {found[1]}" in text, page


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    assert [page.name for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in index] == []
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()


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
