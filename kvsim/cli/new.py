"""`kvsim new`: files to start from, such as a policy of one's own with its tests."""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Annotated

import typer

import kvsim
from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from kvsim import _own
from kvsim.cli import _print
from kvsim.cli._options import AsJson
from kvsim.cli._run_dir import may_make
from kvsim.cli._templates import TEMPLATES, WITHIN

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "routing": "routing",
        "admission_control": "admission_control",
        "fleet": "fleet.scaling",
        "prefix_index": "policies.reuse",
    }
)
"""Where a scenario names a policy, for families that do not go by their name below `policies`."""
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
IMPORTED = frozenset(
    {"Any", "Cache", "Mask", "Iterable", "Iterator", "OrderedDict", "Path", "Request", "Sequence", "Tier"}
)
"""What the files call so besides kvsim's public names."""
TAKEN_CLASSES = frozenset({*kvsim.__all__, *dir(builtins), *IMPORTED})
TAKEN_MODULES = frozenset({*sys.stdlib_module_names, *_own.PACKAGES, "kvsim", "pytest", "conftest"})
"""Modules that a policy's file would hide from the tests beside it."""


def policy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The policy in snake_case, such as my_policy.")],
    family: Annotated[
        str, typer.Option("--family", metavar="FAMILY", help=f"What it decides: {', '.join(TEMPLATES)}.")
    ] = "eviction",
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write NAME.py, a policy that works as it stands, and test_NAME.py, its tests."""
    if family not in TEMPLATES:
        raise InputError("unknown family", where="--family", found=family, allowed=TEMPLATES, near=TEMPLATES)
    cls = _class_of(name)
    may_make(out)
    names = {"name": name, "cls": cls, "family": family}
    files = {out / f"{name}.py": TEMPLATES[family].policy, out / f"test_{name}.py": TEMPLATES[family].test}
    for path in files:
        if os.path.lexists(path):
            raise InputError("is already there; choose another NAME or --out", where=path)
    _write_all({path: Template(text).substitute(names) for path, text in files.items()})

    source, test = files
    tries = [*_test_commands(test), *_trials(family, source, cls)]
    if as_json:
        _print.document({"family": family, "class": cls, "policy": str(source), "test": str(test), "next": tries})
        return
    _print.line(f"{source}: {cls}, which works as it stands; change it")
    _print.line(f"{test}: its tests")
    _print.line("\n".join(["next:", *(f"  {command}" for command in tries)]))


def _trials(family: str, source: Path, cls: str) -> list[str]:
    """Commands that show what the policy does."""
    if family == "placement":
        return [shlex.join(["kvsim", "place", "--policy", f"static,{source}:{cls}"])]
    named = f"{source.resolve()}:{cls}"
    chosen = f"{SECTIONS.get(family, f'policies.{family}')}={named}"
    alone: list[str] = []
    if family in WITHIN:  # in place of policies of tiers that the scenario may name
        chosen = f'policies={{{family}: "{named}"}}'
        alone = ["--set", "engine.prefix_caching=false", "--set", "tiers=[{name: hbm}]"]
    run = shlex.join(["kvsim", "run", "scenario.yaml", "--set", chosen, *alone])
    if family == "eviction":
        return [shlex.join(["kvsim", "cache", "quickstart", "--policy", f"lru,{source}:{cls},belady"]), run]
    return [run]


def _test_commands(test: Path) -> list[str]:
    """What runs the tests; where pytest is not beside kvsim, also what installs it there."""
    if importlib.util.find_spec("pytest") is not None:
        return [shlex.join(["pytest", str(test)])]
    python = [sys.executable, "-m"]
    return [shlex.join([*python, "pip", "install", "pytest"]), shlex.join([*python, "pytest", str(test)])]


def _write_all(files: Mapping[Path, str]) -> None:
    """Write every file or none."""
    made: list[Path] = []
    try:
        for path, text in files.items():
            write_atomic(path, text)
            made.append(path)
    except InputError:
        for path in made:
            path.unlink()
        raise


def _class_of(name: str) -> str:
    """The class name for a policy's name; InputError for a name that cannot be a module's or makes no class name."""
    if not SNAKE_CASE.fullmatch(name) or keyword.iskeyword(name):
        raise InputError("not a name for a policy", where="NAME", found=name, allowed="snake_case, such as my_policy")
    cls = "".join(part.capitalize() for part in name.split("_"))
    if name in TAKEN_MODULES or cls in TAKEN_CLASSES or name.startswith("test_"):
        taken = "means something else in Python, pytest or kvsim"
        raise InputError(taken, where="NAME", found=name, allowed=f"another, such as my_{name}")
    return cls
