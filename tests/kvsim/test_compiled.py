"""Extensions stand for their sources only while they are made of them; then every file of a run is the same."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvsim import _compiled, _own
from kvsim.cli.compile import SAMPLES, compiled, differences, imported

CALL = "from kvsim import _own; _own.pin(); import sim.run, sim.engine.replica as r; print(r.__file__)"


def classes(path: str) -> Iterator[ast.ClassDef]:
    """Those that a file defines."""
    return (node for node in ast.walk(ast.parse((_own.ROOT / path).read_text())) if isinstance(node, ast.ClassDef))


def super_calls(path: str) -> list[ast.Call]:
    """Calls of methods of a base class."""
    calls = (node for node in ast.walk(ast.parse((_own.ROOT / path).read_text())) if isinstance(node, ast.Call))
    return [c for c in calls if isinstance(c.func, ast.Attribute) and ast.unparse(c.func.value).startswith("super(")]


def taken_from(path: str, paths: set[str]) -> set[str]:
    """Names that a file imports from others."""
    tree = ast.parse((_own.ROOT / path).read_text())
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module)
    return {
        a.asname or a.name for node in found if f"{str(node.module).replace('.', '/')}.py" in paths for a in node.names
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with two sources, and a build of them that says so."""
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(f"NAME = {name!r}\n")
    built = _compiled.folder(tmp_path)
    built.mkdir(parents=True)
    sources = ["one.py", "two.py"]
    made = {"sha256": _compiled.digest(tmp_path, sources), "modules": ["one"], "sources": sources}
    (built / _compiled.MANIFEST).write_text(json.dumps(made))
    return tmp_path


def test_a_build_is_current_until_a_source_changes(checkout: Path) -> None:
    assert _compiled.current(checkout)
    (checkout / "two.py").write_text("NAME = 'two.px'\n")  # of the same length
    assert not _compiled.current(checkout)


def test_a_build_is_not_current_without_one_of_its_sources(checkout: Path) -> None:
    (checkout / "one.py").unlink()
    assert not _compiled.current(checkout)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"sha256": "0"}'])
def test_nor_is_one_whose_manifest_is_missing_or_broken(checkout: Path, text: str | None) -> None:
    manifest = _compiled.folder(checkout) / _compiled.MANIFEST
    manifest.unlink()
    if text is not None:
        manifest.write_text(text)
    assert not _compiled.current(checkout)


def test_what_is_compiled_is_there_and_what_it_imports_counts() -> None:
    paths = compiled(_own.ROOT)
    assert "sim/engine/replica.py" in paths
    assert [path for path in paths if not (_own.ROOT / path).exists()] == []
    found = imported(_own.ROOT, ["sim/engine/batch.py"])
    assert {"sim/engine/queue.py", "sim/hierarchy/cache.py", "policies/block.py", "hw_profiles/errors.py"} <= found
    assert "sim/run.py" not in found


def test_no_class_derives_from_a_compiled_one_without_being_compiled() -> None:
    paths = set(compiled(_own.ROOT))
    for package in ("kvsim", *_own.PACKAGES):
        for file in (_own.ROOT / package).rglob("*.py"):
            path = file.relative_to(_own.ROOT).as_posix()
            for node in () if path in paths else classes(path):
                named = {ast.unparse(base) for base in node.bases} & taken_from(path, paths)
                assert not named, f"{path}: {node.name} derives from {', '.join(named)}"


def test_compiled_modules_leave_out_what_mypyc_gets_wrong() -> None:
    """It mixes up what a call of a base class's method spreads, caches no cached property, derives from no class of C,
    and takes no class that a record names before it is there. It says nothing of all that."""
    paths = compiled(_own.ROOT)
    known = {"NamedTuple", "Protocol", "Exception", *(node.name for path in paths for node in classes(path))}
    for path in paths:
        assert "cached_property" not in (_own.ROOT / path).read_text(), path
        for call in super_calls(path):
            assert not any(isinstance(part, ast.Starred) for part in call.args), f"{path}: {ast.unparse(call)}"
            assert all(keyword.arg for keyword in call.keywords), f"{path}: {ast.unparse(call)}"
        later = {node.name for node in classes(path)}
        for node in classes(path):
            bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
            assert bases <= known, f"{path}: {node.name} derives from {', '.join(bases - known)}"
            fields = [field.annotation for field in node.body if isinstance(field, ast.AnnAssign)]
            named = {name.id for field in fields for name in ast.walk(field) if isinstance(name, ast.Name)}
            assert "NamedTuple" not in bases or not named & later, f"{path}: {node.name} names {named & later}"
            later.discard(node.name)


def test_the_sources_run_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_compiled.INTERPRETED, "1")
    done = subprocess.run([sys.executable, "-c", CALL], cwd=_own.ROOT, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == _own.ROOT / "sim" / "engine" / "replica.py"


@pytest.mark.skipif(not _compiled.current(_own.ROOT), reason="no `make compile` since the sources changed")
@pytest.mark.parametrize(("scenario", "settings"), SAMPLES)
def test_runs_are_the_same_to_the_byte(scenario: str, settings: tuple[str, ...]) -> None:
    assert differences(_own.ROOT, scenario, settings) == []
