"""What ships: the wheel carries the data, an installation elsewhere finds it, and the floors hold."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kvsim

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kvsim", "reports", "calibration", "sim", "policies", "traces", "hw_profiles")
DATA = (".yaml", ".json", ".npz", ".jsonl.gz", ".j2", ".css", ".js", "py.typed")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def shipped_data() -> set[str]:
    """Data files of the packages that git would track, relative to the root."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file())
    return {str(file.relative_to(ROOT)) for file in files if file.name.endswith(DATA)}


def test_the_wheel_carries_every_data_file_and_nothing_else_but_code(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = shipped_data()
    assert {suffix for suffix in DATA if any(name.endswith(suffix) for name in data)} >= {
        ".yaml", ".json", ".npz", ".jsonl.gz", ".j2", ".css", "py.typed",
    }  # fmt: skip
    assert data <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    others = {name for name in names if not name.endswith((".py", *DATA)) and ".dist-info/" not in name}
    assert others == set()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)


def test_the_metadata_says_version_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"kvsim-{kvsim.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert f"\nVersion: {kvsim.__version__}\n" in metadata
        assert "\nLicense-Expression: Apache-2.0\n" in metadata
        assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()
        assert "kvsim = kvsim.__main__:main" in archive.read(f"{info}/entry_points.txt").decode()


def test_the_installed_version_is_the_one_in_the_source() -> None:
    assert importlib.metadata.version("kvsim") == kvsim.__version__


def test_an_installation_elsewhere_finds_its_own_data(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
    ]
    installed = run(*pip, "--target", target, wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr

    def call(*arguments: str) -> str:
        done = run(sys.executable, "-m", "kvsim", *arguments, cwd=elsewhere, PYTHONPATH=str(target))
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(sys.executable, "-c", "import kvsim; print(kvsim.__file__)", cwd=elsewhere, PYTHONPATH=str(target))
    assert Path(where.stdout.strip()).is_relative_to(target)
    assert {row["name"] for row in json.loads(call("list", "profiles", "--json"))} >= {"h100-sxm", "a100-80"}
    assert json.loads(call("show", "llama-3.1-8b", "--json"))["name"] == "llama-3.1-8b"
    assert json.loads(call("trace", "stats", "quickstart", "--json"))["requests"] > 1000
    quick = ("run", str(ROOT / "examples" / "quickstart.yaml"), "--out", "run", "--json")
    assert json.loads(call(*quick))["requests"]["finished"] > 0
    assert (elsewhere / "run" / "report.html").stat().st_size > 10_000


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).parent / "lint-imports"
    return run(tool, "--no-cache", cwd=root, PYTHONPATH=str(root), COLUMNS="200")


def test_the_import_floors_hold() -> None:
    linted = lint_imports(ROOT)
    assert linted.returncode == 0, linted.stdout
    assert "0 broken" in linted.stdout


def test_each_floor_breaks_on_a_forbidden_import(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    assert lint_imports(tmp_path).returncode == 0
    (tmp_path / "hw_profiles" / "__init__.py").write_text("def f():\n    import traces\n")
    (tmp_path / "sim" / "__init__.py").write_text("import plotly.graph_objects\n")
    (tmp_path / "reports" / "__init__.py").write_text("import simpy\n")
    (tmp_path / "policies" / "__init__.py").write_text("import torch\n")
    assert "4 broken" in lint_imports(tmp_path).stdout
