"""What `kvsim run` may write into: a new folder, an empty one, or one that holds a run and nothing else.

Saving a run replaces the folder, so one file of somebody else's is reason enough to refuse.
"""

from __future__ import annotations

import os
from pathlib import Path

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from sim.exports import FOLDER, only_exports, remove_exports

WRITTEN = frozenset(
    {"scenario.yaml", "summary.json", "profile.json", "timeline.json", "explain.json", "report.html"}
    | {f"{table}.parquet" for table in ("requests", "steps", "transfers", "samples", "preemptions", "cache_state")}
)


def may_make(out: Path) -> None:
    """Raise InputError when `out` is neither a folder nor can be made one."""
    if not out.exists():
        above = next(folder for folder in out.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"cannot be made: {above} is not a folder to write in", where=out)
    elif not out.is_dir():
        raise InputError("is a file; --out names a folder", where=out)


def may_write(out: Path, scenario: Path) -> None:
    """Raise InputError when a run cannot be written to `out`, or would replace something that is no run."""
    may_make(out)
    if not out.exists():
        return
    entries = {entry.name for entry in out.iterdir()}
    exports = {FOLDER} if only_exports(out / FOLDER) else set()
    foreign = sorted(entries - WRITTEN - exports)
    if not foreign and entries and not entries & {"summary.json", "scenario.yaml"}:
        foreign = sorted(entries)
    if foreign:
        names = foreign[0] if len(foreign) == 1 else f"{foreign[0]} and {len(foreign) - 1} more"
        raise InputError(f"is not a kvsim run (it holds {names}); name another folder with --out", where=out)
    if "summary.json" not in entries and scenario.resolve() == (out / "scenario.yaml").resolve():
        raise InputError("would replace the scenario itself; name another folder with --out", where=out)


def keep_scenario(out: Path, text: str) -> None:
    """Leave only the scenario in `out`, of a run whose numbers must not be used."""
    for name in WRITTEN:
        (out / name).unlink(missing_ok=True)
    remove_exports(out)
    write_atomic(out / "scenario.yaml", text)
