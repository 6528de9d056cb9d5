"""The tutorial is true: its files, its commands and what they print, run in the order of the text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import kvsim

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial-policy.md").read_text()
HOME = "/home/you/policies"
"""What the text calls the folder that it works in."""


class Call(NamedTuple):
    """A command of the text and the lines that it is said to print; "..." stands for any."""

    command: str
    said: list[str]


def files_and_calls() -> list[tuple[str, str] | Call]:
    """What the reader writes (first comment, text) and calls, in order."""
    steps: list[tuple[str, str] | Call] = []
    for language, text in re.findall(r"^```(python|console)\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE):
        if language == "python":
            first, _, rest = text.partition("\n")
            steps.append((first.removeprefix("# "), rest))
            continue
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, *said = part.splitlines()
            steps.append(Call(command, said))
    return steps


def write(folder: Path, name: str, text: str) -> None:
    """A file of the text, or the end of one that is there from a function on."""
    name, _, place = name.partition(", in place of ")
    kept = (folder / name).read_text().partition(f"def {place}")[0] if place else ""
    (folder / name).write_text(kept + text)


def printed(folder: Path, command: str) -> list[str]:
    """What a command prints, without what is different every time."""
    words = {"kvsim": f"{sys.executable} -m kvsim", "pytest": f"{sys.executable} -m pytest -p no:cacheprovider"}
    words |= {"python": sys.executable}
    first, _, rest = command.partition(" ")
    environment = {**os.environ, "KVSIM": str(ROOT), "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    shell = f"{words.get(first, first)} {rest}"
    done = subprocess.run(shell, cwd=folder, env=environment, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [*done.stdout.splitlines(), *(line for line in done.stderr.splitlines() if line.startswith("error"))]
    return [plain(line.replace(str(folder), HOME)) for line in lines if line.strip()]


def plain(line: str) -> str:
    """A line without the time that tests took and the width of the window."""
    return re.sub(r"passed in [\d.]+s.*", "passed in a moment", re.sub(r" +\[100%\]", " [100%]", line.rstrip()))


def matches(said: list[str], lines: list[str]) -> bool:
    """Whether the lines are those said, "..." standing for any number of others."""
    pattern = "".join(r"(?:.*\n)*" if line == "..." else re.escape(plain(line)) + "\n" for line in said if line.strip())
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def test_the_tutorial_from_beginning_to_end(tmp_path: Path) -> None:
    """Without the step that needs the Mooncake trace."""
    for step in files_and_calls():
        if not isinstance(step, Call):
            write(tmp_path, *step)
        elif "mooncake" not in step.command:
            lines = printed(tmp_path, step.command)
            assert matches(step.said, lines), (step.command, "\n".join(lines))


@pytest.mark.slow
def test_the_real_trace(tmp_path: Path) -> None:
    folder = os.environ.get("KVSIM_TRACES")
    if not folder or not (Path(folder) / "mooncake" / "conversation_trace.jsonl.gz").is_file():
        pytest.skip("KVSIM_TRACES has no mooncake/conversation_trace.jsonl.gz")
    name, text = next(step for step in files_and_calls() if not isinstance(step, Call))
    write(tmp_path, name, text)
    (call,) = (step for step in files_and_calls() if isinstance(step, Call) and "mooncake" in step.command)
    lines = printed(tmp_path, call.command)
    assert matches(call.said, lines), "\n".join(lines)


def test_the_mistake_is_told_as_printed() -> None:
    said = re.search(r"^ContractError: (.*)$", TUTORIAL, re.MULTILINE)
    assert said is not None
    name, text = next(step for step in files_and_calls() if not isinstance(step, Call))
    left_out = "        yield from self._shared.values()\n"
    assert name == "keep_shared.py"
    assert text.count(left_out) == 1
    module: dict[str, object] = {"__name__": "broken"}
    exec(compile(text.replace(left_out, ""), name, "exec"), module)
    with pytest.raises(kvsim.ContractError, match=re.escape(said[1])):
        kvsim.check_policy(module["KeepShared"], seed=0, operations=2_000)


@pytest.mark.slow
def test_its_code_is_clean(tmp_path: Path) -> None:
    write(tmp_path, *next(step for step in files_and_calls() if not isinstance(step, Call)))
    options = ["--strict", "--cache-dir", str(tmp_path / "cache"), "keep_shared.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    command = [sys.executable, "-m", "mypy", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_its_links_lead_somewhere() -> None:
    for path in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", TUTORIAL):
        assert (ROOT / "docs" / path).is_file(), path
