"""What a run produced, and the run directory that it becomes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from sim.cache_state import FILE
from sim.exports import remove_exports
from sim.snapshot import FILE as SNAPSHOT
from sim.snapshot import Snapshot
from sim.summary import SCHEMA

ROW_GROUP = 1 << 17
"""Rows of a table that are written at a time; writing takes memory in proportion."""
TABLES = ("requests", "steps", "transfers", "samples", "preemptions")


class Frames(Mapping[str, Any]):
    """Tables as pandas frames; making one takes as long as many a short run, and most are never looked at."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = tables
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._tables[name].to_pandas()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self)})"


@dataclass(frozen=True)
class Result:
    """What a run produced: the summary (kvsim-summary/1), the tables (pyarrow), and what they came from."""

    summary: dict[str, Any]
    tables: dict[str, pa.Table]
    scenario_yaml: str
    profile_values: list[dict[str, Any]]
    cache_state: pa.Table | None = None
    """What the tiers held at the end, or when asked for (`sim.cache_state`)."""
    snapshot: Snapshot | None = None
    """How to go on from a time, if it was asked for (`sim.snapshot`)."""

    @cached_property
    def frames(self) -> Mapping[str, Any]:
        """The tables as pandas frames, each made when it is first asked for."""
        return Frames(self.tables)

    def save(self, out: str | Path) -> Path:
        """Write the run directory (scenario.yaml, summary.json, profile.json, tables) into folder `out`; returns it.

        Everything is written beside it first and then moved in; `summary.json` leaves first and comes last, so a folder
        that has one is whole, and an earlier run stays if the disk is full. Raises InputError if `out` cannot be
        written or holds something else.
        """
        target = Path(out)
        try:
            self._save(target)
        except OSError as error:
            raise InputError(f"cannot write the run directory: {error.strerror or error}", where=target) from None
        return target

    def _save(self, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()) and not any((target / name).exists() for name in ("summary.json", "scenario.yaml")):
            raise InputError("the folder is not empty and is not a run directory", where=target)
        with tempfile.TemporaryDirectory(prefix=".kvsim-", dir=target) as folder:
            temporary = Path(folder)
            write_atomic(temporary / "scenario.yaml", self.scenario_yaml)
            write_atomic(temporary / "profile.json", json.dumps(self.profile_values, indent=1) + "\n")
            tables = {f"{name}.parquet": table for name, table in self.tables.items()}
            if self.cache_state is not None:
                tables[FILE] = self.cache_state
            for name, table in tables.items():
                _write(table, temporary / name)
            write_atomic(temporary / "summary.json", json.dumps(self.summary, indent=1, allow_nan=False) + "\n")
            if self.snapshot is not None:
                document = json.dumps(self.snapshot.document(), indent=1, allow_nan=False)
                write_atomic(temporary / SNAPSHOT, document + "\n")
            for stale in ("summary.json", "report.html", "timeline.json", "explain.json", FILE, SNAPSHOT):
                (target / stale).unlink(missing_ok=True)
            remove_exports(target)
            more = () if self.snapshot is None else (SNAPSHOT,)
            for name in ("scenario.yaml", "profile.json", *tables, *more, "summary.json"):
                (temporary / name).replace(target / name)

    @classmethod
    def load(cls, run_dir: str | Path) -> Result:
        """Read a run directory back. Raises InputError for what is missing, corrupt or of another schema."""
        folder = Path(run_dir)
        try:
            summary = json.loads((folder / "summary.json").read_text())
            values = json.loads((folder / "profile.json").read_text())
            scenario = (folder / "scenario.yaml").read_text()
            tables = {name: pq.read_table(folder / f"{name}.parquet") for name in TABLES}
            state = pq.read_table(folder / FILE) if (folder / FILE).exists() else None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"cannot read the run directory: {error}", where=folder) from None
        if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
            found = summary.get("schema") if isinstance(summary, dict) else None
            raise InputError("", where=folder / "summary.json", path="schema", found=found, allowed=SCHEMA)
        return cls(summary, tables, scenario, values, state)


def _write(table: pa.Table, path: Path) -> None:
    """Times by their bytes, texts by a dictionary: half the CPU time, and less space, than by pyarrow's defaults."""
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_dictionary(f.type)]
    times = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=ROW_GROUP,
        use_dictionary=texts,
        use_byte_stream_split=times,
    )
