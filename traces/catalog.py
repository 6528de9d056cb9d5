"""Traces known by name: what they are, where they come from, where they lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from hw_profiles.errors import InputError
from traces.mooncake import read_mooncake
from traces.request import Trace

READERS: Mapping[str, Callable[..., Trace]] = MappingProxyType({"mooncake": read_mooncake})
# file name endings -> format; a path outside the catalog is read by its name
SUFFIXES: Mapping[str, str] = MappingProxyType({".jsonl": "mooncake", ".jsonl.gz": "mooncake"})


@dataclass(frozen=True)
class CatalogEntry:
    """One named trace.

    `relative`: path below $KVSIM_TRACES and below the cache folder. `url`: the public original; None for a
    sample that ships with the package (then `relative` is below traces/samples). `sha256`: of the
    uncompressed content.
    """

    name: str
    format: str
    relative: str
    url: str | None
    sha256: str
    licence: str
    description: str


_ENTRIES = (
    CatalogEntry(
        name="mooncake-conversation",
        format="mooncake",
        relative="mooncake/conversation_trace.jsonl.gz",
        url="https://raw.githubusercontent.com/kvcache-ai/Mooncake/main/FAST25-release/traces/"
        "conversation_trace.jsonl",
        sha256="b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
        licence="Apache-2.0",
        description="12,031 chat requests in 59 min, 512-token prefix blocks; arrivals quantised to 3 s",
    ),
    CatalogEntry(
        name="quickstart",
        format="mooncake",
        relative="quickstart.jsonl.gz",
        url=None,
        sha256="b72ae8e53cbdaba06ffdd94495a4dcde49649f6eaead8edff36f36e3649dff36",
        licence="Apache-2.0",
        description="1,500 generated chat requests in 10 min: sessions that grow, shared system prompts",
    ),
)
CATALOG: Mapping[str, CatalogEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def cache_dir() -> Path:
    """Where fetched traces lie: $XDG_CACHE_HOME/kvsim/traces, by default ~/.cache/kvsim/traces.

    SOURCE: XDG Base Directory Specification 0.8 (a relative XDG_CACHE_HOME is to be ignored).
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "kvsim" / "traces"


def entry_of(name: str) -> CatalogEntry:
    """The catalog entry `name`. Raises InputError with the nearest name."""
    if name not in CATALOG:
        raise InputError("unknown trace", found=name, allowed=CATALOG, near=CATALOG)
    return CATALOG[name]


def locate(name: str) -> Path:
    """The file of trace `name`: in the package, below $KVSIM_TRACES or in the cache. Raises InputError."""
    entry = entry_of(name)
    if entry.url is None:
        return Path(__file__).parent / "samples" / entry.relative
    shared = os.environ.get("KVSIM_TRACES")
    for folder in ([Path(shared)] if shared else []) + [cache_dir()]:
        if (folder / entry.relative).is_file():
            return folder / entry.relative
    tried = f"KVSIM_TRACES={shared} has no {entry.relative}" if shared else "KVSIM_TRACES is not set"
    ways = f"run `kvsim trace fetch {name}`, or set KVSIM_TRACES to a folder with {entry.relative}"
    raise InputError(f"not on this machine ({tried}); {ways}", where=f"trace {name}")


def load_trace(name_or_path: str | Path, *, strict: bool = False) -> Trace:
    """The trace of a catalog name or of a file. Raises InputError.

    `strict` refuses what is otherwise mended with a line in `Trace.warnings` (see the readers).
    """
    if isinstance(name_or_path, str) and name_or_path in CATALOG:
        entry = CATALOG[name_or_path]
        path = locate(entry.name)
        trace = READERS[entry.format](path, strict=strict, name=entry.name)
        if trace.content_sha256 != entry.sha256:
            text = f"{path}: content differs from the published {entry.name} (sha256 {entry.sha256[:12]}...)"
            if strict:
                raise InputError(text)
            trace = replace(trace, warnings=(text, *trace.warnings))
        return trace
    path = Path(name_or_path)
    suffix = next((ending for ending in SUFFIXES if path.name.endswith(ending)), None)
    if suffix is None and not path.exists():
        text = "neither a known trace nor a file"
        raise InputError(text, found=str(name_or_path), allowed=CATALOG, near=CATALOG)
    if suffix is None:
        raise InputError("unknown trace format", where=path, allowed=f"a name in {' or '.join(SUFFIXES)}")
    return READERS[SUFFIXES[suffix]](path, strict=strict)
