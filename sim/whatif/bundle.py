"""The files that scenarios name, packed so that a run on another machine finds them: traces, policies, profiles.

A bundle mirrors the folders of this machine below one folder of the other, so that files which name each other by
relative paths still do. What ships with kvsim stays out: every machine that runs has it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import load_yaml
from policies.tables import NAMED
from sim.scenario import Scenario
from sim.whatif.runs import Job
from traces.catalog import CATALOG, locate

TRACES, MODULES, FILES = "traces", "modules", "files"
"""Folders of a bundle: traces of the catalog, importable modules, and everything that goes by its path."""
KVSIM = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bundle:
    """Contents by their path in the bundle; `sha256` is of all of it."""

    files: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        """Hash of names and contents."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def unpack(self, folder: Path) -> None:
        """Write every file below `folder`."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def pack(jobs: Iterable[Job]) -> Bundle:
    """What the scenarios of `jobs` name. Raises InputError for what cannot be read."""
    found: dict[str, Path] = {}
    for job in jobs:
        found |= dict(_named(job.scenario))
    files = {}
    for name, path in found.items():
        try:
            files[name] = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror or error}", where=path) from None
    return Bundle(files)


def travelling(job: Job) -> Job:
    """`job` with every value spelled out and absolute paths: it does not depend on a folder any more."""
    return replace(job, document=job.scenario.resolved(), base_dir=Path("/"))


def arrived(job: Job, folder: Path) -> Job:
    """A travelling job where its bundle was unpacked to `folder`."""
    root = folder / FILES

    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: here(item) for key, item in value.items()}
        if isinstance(value, list):
            return [here(item) for item in value]
        if isinstance(value, str) and value.startswith("/"):
            path, colon, attribute = value.rpartition(":") if ":" in value else (value, "", "")
            moved = root / path.lstrip("/")
            return f"{moved}{colon}{attribute}" if moved.exists() else value
        return value

    return replace(job, document=here(dict(job.document)), base_dir=folder)


def _named(scenario: Scenario) -> Iterator[tuple[str, Path]]:
    """(path in the bundle, path here) of every file that a scenario names."""
    document = scenario.resolved()
    trace = document["trace"]
    if "name" in trace and not CATALOG[trace["name"]].ships:
        yield f"{TRACES}/{CATALOG[trace['name']].relative}", locate(trace["name"])
    paths = [Path(trace["path"])] if "path" in trace else []
    model = Path(document["model"])
    if model.is_absolute():
        config = model / "config.json" if model.is_dir() else model
        paths += [path for path in (config, config.with_name("hf_quant_config.json")) if path.exists()]
    profile = Path(document["hardware"]["profile"])
    if profile.is_absolute():
        paths += _profile_files(profile)
    paths += [Path(tier["device"]) for tier in document["tiers"] if str(tier.get("device", "")).startswith("/")]
    if "path" in document.get("importance", {}):
        paths.append(Path(document["importance"]["path"]))
    if "warm_start" in document:
        paths.append(Path(document["warm_start"]["path"]))
    gate = document.get("admission_control")
    for section in (
        {"routing": document["routing"], "admission_control": gate},
        document["policies"],
        *document["tiers"],
    ):
        for family in NAMED:
            named = section.get(family) or {}
            for policy in named if isinstance(named, list) else [named]:
                source, colon, _ = str(policy.get("name", "")).rpartition(":")
                if colon and source.endswith(".py"):
                    paths.append(Path(source))
                elif colon:
                    yield from _module_files(source)
    yield from ((f"{FILES}/{str(path).lstrip('/')}", path) for path in paths)


def _profile_files(path: Path) -> list[Path]:
    """A profile and those that it is based on (`hw_profiles.documents`), as far as they are files of the user."""
    found = [path]
    while len(found) < 8:
        document = load_yaml(found[-1])
        named = document.get("base") or document.get("machine")
        beside = Path(os.path.normpath(found[-1].parent / str(named)))
        if not named or not beside.is_file():
            break
        found.append(beside)
    return found


def _module_files(name: str) -> Iterator[tuple[str, Path]]:
    """The Python files of the package that a module is in; none of kvsim's own."""
    spec = importlib.util.find_spec(name.partition(".")[0])
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin).resolve()
    if origin.is_relative_to(KVSIM):
        return
    if origin.name != "__init__.py":
        yield f"{MODULES}/{origin.name}", origin
        return
    above = origin.parent.parent
    for path in sorted(origin.parent.rglob("*.py")):
        yield f"{MODULES}/{path.relative_to(above)}", path
