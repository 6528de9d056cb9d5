"""kvsim in a folder that holds its own `sim.py`, `traces/` and `reports/`: common names that anyone may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kvsim
from kvsim import _own

POISON = "raise SystemExit('a file of the user was imported')\n"
SCRIPT = """
import sys
import kvsim
result = kvsim.Scenario.load("small.yaml").run()
assert isinstance(result, kvsim.Result)
assert isinstance(kvsim.Scenario.load("small.yaml"), kvsim.Scenario)
print(result.summary["requests"]["finished"])
"""


@pytest.fixture
def crowded(folder: Path) -> Path:
    """A folder where every name that kvsim imports is taken, as a module or as a package."""
    for name in ("sim", "policies", "calibration", "typer", "simpy", "yaml"):
        (folder / f"{name}.py").write_text(POISON)
    for name in ("traces", "reports", "hw_profiles"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(POISON)
    return folder


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [[str(Path(sys.executable).parent / "kvsim")], [sys.executable, "-m", "kvsim"]],
    ids=["kvsim", "python -m kvsim"],
)
def test_the_command_line_uses_its_own_modules(command: list[str], crowded: Path) -> None:
    for arguments in (["--version"], ["list", "policies"], ["run", "small.yaml", "--out", "one"]):
        done = run(*command, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert (crowded / "one" / "report.html").exists()


def test_so_does_the_command_line_with_such_a_folder_on_the_path(crowded: Path, tmp_path: Path) -> None:
    for name in ("typer", "simpy", "yaml"):
        (crowded / f"{name}.py").unlink()  # a library that PYTHONPATH replaces is the user's decision
    (tmp_path / "elsewhere").mkdir()
    script = str(Path(sys.executable).parent / "kvsim")
    done = subprocess.run(
        [script, "run", str(crowded / "small.yaml"), "--no-report", "--quiet"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(crowded)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_so_does_a_script_beside_them(crowded: Path) -> None:
    for name in ("typer", "simpy", "yaml"):
        (crowded / f"{name}.py").unlink()  # beside a script these are the script's own
    (crowded / "study.py").write_text(SCRIPT)
    done = run(sys.executable, "study.py")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "60\n")


def test_a_module_of_that_name_loaded_before_is_named(folder: Path) -> None:
    (folder / "sim.py").write_text("SPEED = 3\n")
    (folder / "study.py").write_text("import sim\nimport kvsim\nkvsim.Scenario.load('small.yaml')\n")
    done = run(sys.executable, "study.py")
    assert done.returncode == 1
    assert f"own package 'sim' ({_own.ROOT / 'sim'})" in done.stderr
    assert str(folder / "sim.py") in done.stderr


def test_the_checkout_itself_stays_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(_own.ROOT)
    _own.drop_working_directory()
    assert sys.path[0] == ""
    monkeypatch.chdir(_own.ROOT / "kvsim")
    monkeypatch.setattr(sys, "path", ["", str(_own.ROOT / "kvsim"), str(_own.ROOT)])
    _own.drop_working_directory()
    assert sys.path == [str(_own.ROOT)]


def test_public_names_only() -> None:
    assert set(kvsim.__all__) <= set(dir(kvsim))
    assert kvsim.Scenario.__module__ == "sim.scenario"
    with pytest.raises(AttributeError, match="no attribute 'Scenari'"):
        _ = kvsim.Scenari  # type: ignore[attr-defined]
