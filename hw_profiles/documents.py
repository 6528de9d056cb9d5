"""The YAML document of a profile, with what it takes over from others.

`machine: NAME` takes what is not fitted (capacity, peaks, tiers, links, caps, interference) from a machine sheet in
`hw_profiles/machines`; `base: NAME` takes that and every kernel group that is not given from another profile. NAME is a
shipped one or the path of a YAML file, relative to the file that names it. Sources that nothing refers to are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import parse_yaml, read_text

PROFILES = Path(__file__).parent / "profiles"
MACHINES = Path(__file__).parent / "machines"
MACHINE_KEYS = ("vendor", "target", "capacity", "peaks", "tiers", "links", "caps", "interference")
"""What a machine sheet holds, besides `schema`, `name`, `launch` (below `kernels:` in a profile) and `sources`."""
_DEEPEST = 4


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


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """(the document with what it takes over, SHA-256 of every file read). Raises InputError naming the file."""
    texts: list[str] = []
    document = _read(path, texts, _DEEPEST)
    return _used_sources(document), hashlib.sha256("".join(texts).encode()).hexdigest()


def _read(path: Path, texts: list[str], left: int) -> dict[str, Any]:
    text = read_text(path)
    texts.append(text)
    document = parse_yaml(text, where=path)
    try:
        return _complete(document, path, texts, left)
    except InputError as error:
        raise error.at(where=path) from None


def _complete(document: dict[str, Any], path: Path, texts: list[str], left: int) -> dict[str, Any]:
    machine, base = document.pop("machine", None), document.pop("base", None)
    if machine is None and base is None:
        return document
    if machine is not None and base is not None:
        raise InputError("either a machine or a base", path="machine", found=machine)
    if not left:
        raise InputError("too many profiles that are based on one another", path="base", found=base)
    named = machine if base is None else base
    if not isinstance(named, str):
        raise InputError("", path="base" if machine is None else "machine", found=named, allowed="a name or a path")
    folder, what = (MACHINES, "machine") if base is None else (PROFILES, "profile")
    other = _read(find(named, folder, what, beside=path), texts, left - 1)
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
