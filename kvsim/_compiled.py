"""The hot modules as C extensions, made of these same sources by `make compile`, and used only while they are.

Python then finds `sim.engine.replica` and the others in `build/compiled/` instead of beside its source. Nothing else
changes: the same module names, the same numbers to the last bit, about a third less CPU time. Without a build, with
one for another Python, or after an edit of a source, the sources run as they are.
"""

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

INTERPRETED = "KVSIM_INTERPRETED"
"""Environment variable: if it says anything, the sources run as they are."""
MANIFEST, LIBRARY = "manifest.json", "library"
"""In the folder of a build: what it was made of, and where the library lies that extensions take their code from."""


def folder(root: Path) -> Path:
    """Where the extensions of a checkout lie that are for this Python."""
    return root / "build" / "compiled" / EXTENSION_SUFFIXES[0].strip(".").partition(".")[0]


def digest(root: Path, sources: Iterable[str]) -> str:
    """SHA-256 over names and content of files below `root`. Raises OSError if one is missing."""
    sha = hashlib.sha256()
    for name in sources:
        content = (root / name).read_bytes()
        sha.update(f"{name} {len(content)}\n".encode() + content)
    return sha.hexdigest()


def current(root: Path) -> list[str]:
    """The modules that have extensions which were made of the sources as they are now: what is compiled, and all of
    kvsim's that it imports. Empty if they were not, or if there are none."""
    try:
        made = json.loads((folder(root) / MANIFEST).read_text())
        return list(made["modules"]) if made["sha256"] == digest(root, made["sources"]) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def use(root: Path) -> None:
    """Let the extensions stand for their sources, if they may, before any of these is imported.

    Called once, by `kvsim._own.pin`. A program that has imported some of the sources before goes on with those.
    """
    modules = [] if os.environ.get(INTERPRETED) else current(root)
    if not modules or any(name in sys.modules for name in modules):
        return
    built = folder(root)
    sys.path.append(os.fspath(built / LIBRARY))  # also in the processes of `sim.whatif.pool`
    for package in sorted({name.rpartition(".")[0] for name in modules}):
        importlib.import_module(package).__path__.insert(0, os.fspath(built.joinpath(*package.split("."))))
