"""`python -m kvsim.cli.compile` (`make compile`): make C extensions of the hot modules of this checkout, with mypyc.

Needs a C compiler and the extra `compile`. Takes a minute or two; until a source changes, a second call does nothing.
"""

import ast
import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from kvsim import _compiled, _own

FOLDERS = ("sim/cost", "sim/engine", "sim/hierarchy")
SINGLE = (
    *("hw_profiles/curve.py", "hw_profiles/decode_curve.py", "policies/block.py"),
    *("policies/eviction/runs.py", "sim/arrivals.py"),
    *("sim/cache/instant.py", "sim/columns.py", "sim/invariants.py", "sim/recorder.py"),
    "sim/served.py",
)
INTERPRETED = ("sim/engine/queue.py", "sim/engine/queue_view.py")
"""Modules of these folders and these ones are compiled: all that a step, a block or a request goes through, but for
policies, which anyone may derive from, and classes that derive from other libraries' (`sim.clock`, the queue and what
policies see of it). A class that is compiled can have no subclass that is not."""
GROUP = "kvsim_compiled"
"""The library with all of them; each has a small extension of its own that takes it from there."""
C_FLAGS = ("-O1", "-g0")
SAMPLES = (
    ("examples/quickstart.yaml", ()),
    ("examples/ssd_tier.yaml", ()),
    ("examples/long_context.yaml", ("policies=arkvale",)),
    ("examples/quickstart.yaml", ("disaggregation={prefill: 1, decode: 1, transfer: layer}",)),
)
"""Runs that must come out the same, to the byte, before extensions are used: scenarios and their settings."""


def main() -> None:
    """Compile unless that is done; exit code 1 and a line that says why if it cannot be."""
    root = _own.ROOT
    if _compiled.current(root):
        print("compiled already")
        return
    if not (root / "pyproject.toml").exists():
        sys.exit("error: kvsim is compiled in its checkout, and this one is installed elsewhere")
    try:
        import mypyc.build  # noqa: F401
        import setuptools  # noqa: F401
    except ImportError as error:
        sys.exit(f"error: {error} (pip install -e '.[compile]')")
    print(f"compiling {len(compiled(root))} modules, which takes a minute or two ...", flush=True)
    build(root)
    print(f"compiled into {_compiled.folder(root)}")


def build(root: Path) -> None:
    """Put the extensions where `_compiled.use` finds them, all of them or none. Raises SystemExit."""
    paths = compiled(root)
    sources = sorted(imported(root, paths))
    modules = [path.removesuffix(".py").replace("/", ".") for path in paths]
    made = {"sha256": _compiled.digest(root, sources), "modules": modules, "sources": sources}
    target = _compiled.folder(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        new = Path(scratch) / "new"
        _extensions(root, paths, Path(scratch) / "c", new)
        (new / _compiled.LIBRARY).mkdir()
        for library in new.glob(f"{GROUP}__mypyc*"):
            library.rename(new / _compiled.LIBRARY / library.name)
        (new / _compiled.MANIFEST).write_text(json.dumps(made))
        if target.exists():
            target.rename(Path(scratch) / "old")
        new.rename(target)
        try:
            differ = [file for path, settings in SAMPLES for file in differences(root, path, settings)]
        except subprocess.CalledProcessError as error:
            differ = [f"the run failed: {error.stderr[-2000:]}"]
        if differ:
            target.rename(Path(scratch) / "wrong")
            sys.exit(f"error: what was compiled is not what the sources do, and is thrown away: {', '.join(differ)}")


def differences(root: Path, scenario: str, settings: Iterable[str]) -> list[str]:
    """Files of a run that are not the same, to the byte, from the extensions and from the sources.

    Raises CalledProcessError for a run that fails.
    """
    sets = [part for setting in settings for part in ("--set", setting)]
    runs = []
    for interpreted in ("", "1"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "kvsim", "run", scenario, *sets, "--out", f"{folder}/run", "--quiet"]
            environment = {**os.environ, _compiled.INTERPRETED: interpreted}
            subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
            runs.append({path.name: path.read_bytes() for path in Path(folder, "run").iterdir()})
    one, two = runs
    summaries = [json.loads(run.pop("summary.json")) for run in runs]
    how = [summary.pop("simulator")["compiled"] for summary in summaries]
    if how != [True, False]:
        return ["the extensions were not used"]
    found = [name for name in sorted({*one, *two}) if one.get(name) != two.get(name)]
    return found if summaries[0] == summaries[1] else [*found, "summary.json"]


def compiled(root: Path) -> list[str]:
    """What is compiled: paths below `root`."""
    inside = (path for folder in FOLDERS for path in (root / folder).glob("*.py") if path.name != "__init__.py")
    return sorted({*SINGLE, *(path.relative_to(root).as_posix() for path in inside)} - {*INTERPRETED})


def imported(root: Path, paths: list[str]) -> set[str]:
    """These files and what they import of kvsim's, and so on: paths below `root`."""
    found: set[str] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse((root / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            ours = (name.replace(".", "/") for name in names if name.partition(".")[0] in _own.PACKAGES)
            todo += [file for name in ours for file in (f"{name}.py", f"{name}/__init__.py") if (root / file).exists()]
    return found


def _extensions(root: Path, paths: list[str], c_folder: Path, target: Path) -> None:
    """Translate and compile into `target`."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    os.chdir(root)  # where mypy finds its settings, and the modules their names
    # mypyc writes signatures into docstrings, and takes every parameter of __init__ for positional: a required keyword
    # after an optional parameter would be an error there.
    defaults = inspect.Signature.__init__.__kwdefaults__ or {}
    defaults["__validate_parameters__"] = False
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            extensions = mypycify([*paths], group_name=GROUP, target_dir=os.fspath(c_folder))
    except SystemExit:
        sys.exit(f"{said.getvalue()}error: mypyc refuses a module")
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, *C_FLAGS]
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib, command.build_temp = os.fspath(target), os.fspath(c_folder / "objects")
    command.parallel = os.cpu_count() or 1
    command.ensure_finalized()
    try:
        command.run()
    except Exception as error:  # noqa: BLE001 -- setuptools has no class for what a compiler may say
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
