"""Text files line by line: what every reader shares, from damaged compression to words for a bad JSON value."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from traces.packed import open_unpacked

MAX_TOKENS = 2**31 - 1  # no model reads more; keeps every sum over a trace within int64
MAX_ID = 2**62  # hash ids below it; leaves room for ids that a reader adds


class Lines:
    """The lines of a file, plain or gzip, with their numbers (from 1); blank ones are skipped.

    `sha256()` is of the uncompressed content read so far. Iterating raises InputError, with file and line, for
    a file that cannot be read, that is damaged, or that holds nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()

    def __iter__(self) -> Generator[tuple[int, bytes], None, None]:
        number = 0
        empty = True
        try:
            with open_unpacked(self.path) as stream:
                for number, line in enumerate(stream, start=1):
                    self._digest.update(line)
                    if not line.isspace():
                        empty = False
                        yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            text = f"the compressed file is damaged or cut off ({error})"
            raise InputError(text, where=f"{self.path}:{number + 1}") from error
        except OSError as error:
            raise InputError(f"cannot read it ({error.strerror or error})", where=self.path) from error
        if empty:
            raise InputError("holds no request", where=self.path)

    def sha256(self) -> str:
        return self._digest.hexdigest()


def stem(path: Path, *endings: str) -> str:
    """The file's name less .gz and less the first of `endings` that fits."""
    name = path.name.removesuffix(".gz")
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)


def json_object(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object on `line`. Raises InputError at `where`."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else "; the file ends here, so it may be cut off"
        raise InputError(f"not valid JSON ({str(error).splitlines()[0]}){cut}", where=where) from error
    if not isinstance(row, dict):
        raise InputError(f"found {short(row)}, expected a JSON object", where=where)
    return row


def short(value: object) -> str:
    """The value as JSON would write it, cut to 40 characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def whole(row: dict[str, Any], key: str, low: int, high: int, where: str, inside: str = "") -> int:
    """The whole number `row[key]` from `low` to `high`. Raises InputError naming `inside` + `key`."""
    value: Any = row.get(key)
    if type(value) is int and low <= value <= high:
        return value
    if key not in row:
        raise InputError("missing", where=where, path=inside + key)
    problem = f"found {short(value)}, expected a whole number from {low} to {high}"
    raise InputError(problem, where=where, path=inside + key)


def seconds(row: dict[str, Any], key: str, where: str, inside: str = "") -> float:
    """The time `row[key]` in seconds, 0 or later. Raises InputError naming `inside` + `key`."""
    value: Any = row.get(key)
    if type(value) in (int, float) and 0 <= value < 2**53 and math.isfinite(value):
        return float(value)
    if key not in row:
        raise InputError("missing", where=where, path=inside + key)
    raise InputError(f"found {short(value)}, expected seconds, 0 or later", where=where, path=inside + key)


def id_list(row: dict[str, Any], key: str, count: int, where: str, rule: str) -> list[int]:
    """The list of `count` hash ids `row[key]`. Raises InputError; `rule` says why there should be that many."""
    ids = row.get(key)
    if not isinstance(ids, list):
        problem = "missing" if key not in row else f"found {short(ids)}, expected a list of ids"
        raise InputError(problem, where=where, path=key)
    for i in ids:
        if type(i) is not int or not 0 <= i < MAX_ID:
            problem = f"found {short(i)}, expected whole numbers from 0 to 2**62 - 1"
            raise InputError(problem, where=where, path=key)
    if len(ids) != count:
        raise InputError(f"found {len(ids)} ids, expected {count} ({rule})", where=where, path=key)
    return ids
