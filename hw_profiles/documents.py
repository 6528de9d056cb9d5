"""The YAML document of a profile, with what it takes over from others.

`machine: NAME` takes what is not fitted (capacity, peaks, tiers, links, caps, interference) from a machine sheet in
`hw_profiles/machines`; `base: NAME` takes that and every kernel group that is not given from another profile. NAME is a
shipped one or the path of a YAML file, relative to the file that names it. Sources that nothing refers to are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import parse_yaml, read_text

PROFILES = Path(__file__).parent / "profiles"
MACHINES = Path(__file__).parent / "machines"
MACHINE_KEYS = ("vendor", "target", "capacity", "peaks", "tiers", "links", "caps", "interference")
"""What a machine sheet holds, besides `schema`, `name`, `launch` (below `kernels:` in a profile) and `sources`."""
_DEEPEST = 4
_KEPT = 64
"""Files whose contents a process keeps: runs of a sweep load the same profiles again and again."""


def list_shipped(folder: Path) -> list[str]:
    """Names of the shipped YAML files of a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find(name_or_path: str | Path, folder: Path, what: str, beside: Path | None = None) -> Path:
    """The file of a shipped name, or of a path (relative to the folder of `beside`). Raises InputError."""
    text, names = str(name_or_path), list_shipped(folder)
    if text in names:
        return folder / f"{text}.yaml"
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return beside.parent / path if beside is not None and not path.is_absolute() else path
    allowed = f"the path of a .yaml file, or one of {', '.join(names)}"
    raise InputError(f"unknown {what}", found=text, allowed=allowed, near=names)


Files = tuple[tuple[Path, str], ...]
"""A profile's file and those that it takes values over from, each with its text."""


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """(the document with what it takes over, SHA-256 of every file read). Raises InputError naming the file."""
    document, sha256 = document_of(files_of(path))
    return deepcopy(document), sha256


def files_of(path: Path) -> Files:
    """The file and those behind it, the nearest first. Raises InputError naming the file."""
    files = [(path, read_text(path))]
    while other := _behind(*files[-1]):
        if len(files) > _DEEPEST:
            problem = "too many profiles that are based on one another"
            raise InputError(problem, where=files[-1][0], path="base", found=str(other))
        files.append((other, read_text(other)))
    return tuple(files)


def document_of(files: Files) -> tuple[dict[str, Any], str]:
    """As `read_document`; what it holds is shared and may not be changed."""
    document: dict[str, Any] = {}
    for file in reversed(files):
        document = _over(_parsed(*file), document)
    return _used_sources(document), hashlib.sha256("".join(text for _, text in files).encode()).hexdigest()


@lru_cache(maxsize=_KEPT)
def _parsed(path: Path, text: str) -> Mapping[str, Any]:
    return parse_yaml(text, where=path)


def _behind(path: Path, text: str) -> Path | None:
    """The file that this one takes values over from."""
    document = _parsed(path, text)
    machine, base = document.get("machine"), document.get("base")
    if machine is None and base is None:
        return None
    if machine is not None and base is not None:
        raise InputError("either a machine or a base", where=path, path="machine", found=machine)
    named = machine if base is None else base
    if not isinstance(named, str):
        raise InputError(
            "", where=path, path="base" if machine is None else "machine", found=named, allowed="a name or a path"
        )
    folder, what = (MACHINES, "machine") if base is None else (PROFILES, "profile")
    try:
        return find(named, folder, what, beside=path)
    except InputError as error:
        raise error.at(where=path) from None


def _over(parsed: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The document over `other`, from which it takes what it names a machine or a base for."""
    document = {key: value for key, value in parsed.items() if key not in {"machine", "base"}}
    base = parsed.get("base")
    if base is None and parsed.get("machine") is None:
        return document
    kept = MACHINE_KEYS if base is None else (*MACHINE_KEYS, "validity")
    merged = {**{key: other[key] for key in kept if key in other}, **document}
    inherited = {"launch": other["launch"]} if base is None and "launch" in other else {}
    kernels = other.get("kernels", {}) if base is not None else inherited
    own = document.get("kernels", {})
    if isinstance(own, Mapping) and isinstance(kernels, Mapping):
        merged["kernels"] = {**kernels, **own}
    sources, more = other.get("sources", {}), document.get("sources", {})
    if isinstance(sources, Mapping) and isinstance(more, Mapping):
        merged["sources"] = {**sources, **more}
    return merged


def _used_sources(document: dict[str, Any]) -> dict[str, Any]:
    sources = document.get("sources")
    if not isinstance(sources, Mapping):
        return document
    used: set[str] = set()
    _collect([value for key, value in document.items() if key != "sources"], used)
    return {**document, "sources": {key: value for key, value in sources.items() if key in used}}


def _collect(node: Any, used: set[str]) -> None:
    if isinstance(node, Mapping):
        if isinstance(node.get("src"), str):
            used.add(node["src"])
        for value in node.values():
            _collect(value, used)
    elif isinstance(node, list):
        for value in node:
            _collect(value, used)
