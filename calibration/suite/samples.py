"""Raw samples: one JSON object a line, only ever appended, each line written out as it comes.

A file starts with an `env` record (device, software). Then, in any order: `check` (a kernel against torch), `anchor`
(the same two measurements at start, middle and end), `sample` (one point in one pass: every repetition's microseconds
on the device and on the host), `problem` (a point that failed), and `end` when a run finished. A run that goes on adds
another `env`. A run that was killed may leave half a line; all lines before it count.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from hw_profiles.errors import InputError

SCHEMA = "kvsim-calib-raw/1"
FILE = "samples.jsonl"
KINDS = ("env", "check", "anchor", "sample", "problem", "end")
Record = dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """Records of one device by kind, in the order of the file."""

    path: Path
    env: Record
    checks: tuple[Record, ...]
    anchors: tuple[Record, ...]
    samples: tuple[Record, ...]
    problems: tuple[Record, ...]
    runs: int
    complete: bool

    def of(self, bench: str, **key: object) -> list[Record]:
        """Samples of a bench whose key has these values."""
        return [
            record
            for record in self.samples
            if record["bench"] == bench and all(record["key"].get(name) == value for name, value in key.items())
        ]

    def done(self) -> set[tuple[int, str]]:
        """(pass, point name) of what was measured or failed."""
        return {(record["pass"], record["name"]) for record in (*self.samples, *self.problems)}


@dataclass
class Writer:
    """Appends records to a file; `close` or a `with` block ends it."""

    path: Path
    _file: IO[str] = field(init=False)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_half_line(self.path)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, kind: str, **values: Any) -> None:
        """Append one record and hand it to the system."""
        self._file.write(json.dumps({"type": kind, **values}, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cut_half_line(path: Path) -> None:
    """Take off what a killed run left behind the last whole line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)


def read_samples(path: Path, *, half_line: bool = False) -> Samples:
    """Read a `.jsonl` or `.jsonl.gz` file, or the one in a folder. Raises InputError naming the line.

    Half a line at the end is refused, or left out with `half_line`.
    """
    if path.is_dir():
        path = path / FILE
    records = list(_records(path, half_line))
    if not records or records[0]["type"] != "env":
        raise InputError("no `env` record", where=path, path="line 1", allowed=f"a file of schema {SCHEMA}")
    runs = [record for record in records if record["type"] == "env"]
    for number, record in enumerate(runs, start=1):
        same_device(path, runs[0], record, f"run {number}")
    by_kind = {kind: tuple(record for record in records if record["type"] == kind) for kind in KINDS}
    return Samples(
        path=path,
        env=runs[0],
        checks=by_kind["check"],
        anchors=by_kind["anchor"],
        samples=by_kind["sample"],
        problems=by_kind["problem"],
        runs=len(runs),
        complete=bool(by_kind["end"]),
    )


def _records(path: Path, half_line: bool) -> list[Record]:
    lines, whole = _lines(path)
    records = []
    for number, line in enumerate(lines, start=1):
        last = number == len(lines)
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if record is None and last and not whole:
            if half_line:
                break
            problem = "cut off in its last line, as by a run that was killed: go on with --resume, or take the line off"
            raise InputError(problem, where=path, path=f"line {number}")
        _check(record, path, number)
        records.append(record)
    return records


def _lines(path: Path) -> tuple[list[str], bool]:
    """(lines, whether the last one is whole)."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        text = data.decode()
    except FileNotFoundError:
        raise InputError("file not found", where=path) from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"not a whole gzip file ({error})", where=path) from None
    except UnicodeDecodeError:
        raise InputError("not text", where=path) from None
    return text.splitlines(), text.endswith("\n")


def _check(record: object, path: Path, number: int) -> None:
    line = f"line {number}"
    if not isinstance(record, Mapping):
        raise InputError("not a JSON object", where=path, path=line)
    kind = record.get("type")
    if kind not in KINDS:
        raise InputError("", where=path, path=f"{line}: type", found=kind, allowed=KINDS)
    if kind == "env" and record.get("schema") != SCHEMA:
        raise InputError("", where=path, path=f"{line}: schema", found=record.get("schema"), allowed=SCHEMA)
    if kind == "sample":
        times = record.get("us")
        if not isinstance(times, list) or not times or not all(_is_time(value) for value in times):
            raise InputError("", where=path, path=f"{line}: us", found=times, allowed="a list of times above 0")
        if not isinstance(record.get("key"), Mapping) or not isinstance(record.get("bench"), str):
            raise InputError("a sample without `bench` or `key`", where=path, path=line)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def same_device(path: Path, first: Record, other: Record, who: str) -> None:
    """Raise InputError if two `env` records name different devices."""
    mine, theirs = (record.get("device", {}) for record in (first, other))
    for name in ("kind", "name", "arch", "uuid", "memory_bytes"):
        if mine.get(name) != theirs.get(name):
            problem = f"samples of two devices: {who} has another {name}"
            raise InputError(problem, where=path, path=f"device.{name}", found=theirs.get(name), allowed=mine.get(name))
