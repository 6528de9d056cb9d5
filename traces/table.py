"""CSV traces of lengths alone: a header, then one request a line; columns are found by name, others ignored."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hw_profiles.errors import InputError
from traces.conversations import by_session
from traces.lines import MAX_TOKENS, Lines, short, stem
from traces.order import in_order
from traces.request import Floats, Trace


@dataclass(frozen=True)
class Clock:
    """The column of arrival times: `parse` gives ticks, or raises ValueError; `per_second` of them make 1 s.

    `expected`: what a good cell looks like. `zero`: the earliest arrival becomes 0 s (calendar times).
    """

    column: str
    parse: Callable[[str], float]
    expected: str
    per_second: float = 1.0
    zero: bool = False


@dataclass(frozen=True)
class Layout:
    """Names of the columns. `clock` None: the format has no times. `failed`: an output of 0 is a failed request.

    `session` (equal within a conversation; empty: none) and `elapsed` (s, from arrival to the end of the answer)
    are read where the header has them.
    """

    clock: Clock | None
    input: str
    output: str
    failed: bool = False
    session: str | None = None
    elapsed: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (*((self.clock.column,) if self.clock else ()), self.input, self.output)


class _Talk:
    """Conversations of a table: places of their columns, None where the file has none, and what the lines say."""

    def __init__(self, session: int | None = None, elapsed: int | None = None) -> None:
        self.session = session
        self._elapsed = elapsed
        self._numbers: dict[str, int] = {}
        self._owners, self._seconds = array("q"), array("d")

    def add(self, cells: list[str], layout: Layout, where: str) -> None:
        """Reads one line."""
        name = cells[self.session or 0]
        self._owners.append(self._numbers.setdefault(name, len(self._numbers)) if name else -1)
        elapsed = cells[self._elapsed] if self._elapsed is not None else ""
        try:
            self._seconds.append(seconds_cell(elapsed) if elapsed else math.nan)
        except ValueError:
            allowed = "seconds, 0 or later, or nothing"
            raise InputError("", where=where, path=layout.elapsed, found=elapsed, allowed=allowed) from None

    def columns(self, arrival_s: Floats) -> dict[str, Any]:
        """Columns of a Trace whose requests arrive at `arrival_s` (s); none if the file names no session."""
        if not self._numbers:
            return {}
        sessions = np.frombuffer(self._owners, np.int64)
        links = by_session(sessions, arrival_s, arrival_s + np.frombuffer(self._seconds))
        return {"session_ids": sessions, **links._asdict()}


def read_table(path: Path, layout: Layout, *, strict: bool, name: str | None) -> Trace:
    """The trace in `path` (plain or gzip), without prefix information (`block_tokens` 0).

    Lines out of order of time are sorted (stable) and failed requests are dropped, each with one line in
    `Trace.warnings`; `strict` refuses both. Raises InputError naming file, line and column for all else.
    """
    content = Lines(path)
    clock = layout.clock
    ticks, inputs, outputs, lines = array("q" if clock and clock.zero else "d"), array("q"), array("q"), array("q")
    failed = array("q")
    width, places = 0, [0, 0, 0]
    talk = _Talk()
    for number, line in content:
        where = f"{path}:{number}"
        cells = split(line, where)
        if not width:
            width, places = len(cells), _header(cells, layout, where)
            talk = _Talk(_optional(cells, layout.session, where), _optional(cells, layout.elapsed, where))
            continue
        if len(cells) != width:
            cut = "" if line.endswith(b"\n") else "; the file ends here, so it may be cut off"
            raise InputError(f"found {len(cells)} columns, expected {width} as in the header{cut}", where=where)
        time, tokens_in, tokens_out = cells[places[0]], cells[places[1]], cells[places[2]]
        if layout.failed and tokens_out == "0":
            failed.append(number)
            continue
        try:
            tick = clock.parse(time) if clock else 0.0
            if not ((tokens_in + tokens_out).isascii() and tokens_in.isdigit() and tokens_out.isdigit()):
                raise ValueError
            before, after = int(tokens_in), int(tokens_out)
            if not (1 <= before <= MAX_TOKENS and 1 <= after <= MAX_TOKENS):
                raise ValueError
        except ValueError:
            _refuse(time, tokens_in, layout, tokens_out, where)
        ticks.append(tick)  # type: ignore[arg-type]  # whole numbers where the array is of them
        inputs.append(before)
        outputs.append(after)
        lines.append(number)
        if talk.session is not None:
            talk.add(cells, layout, where)
    warnings = _on_failed(failed, path, strict)
    if not lines:
        raise InputError("holds no request", where=path)
    stamps = np.frombuffer(ticks, np.dtype(ticks.typecode))
    if clock and clock.zero:
        stamps = stamps - stamps.min()
    arrival_s = stamps / (clock.per_second if clock else 1.0)
    trace = Trace(
        name=name or stem(path, ".csv"),
        block_tokens=0,
        arrival_s=arrival_s,
        input_tokens=np.frombuffer(inputs, np.int64),
        output_tokens=np.frombuffer(outputs, np.int64),
        hash_ids=np.zeros(0, np.int64),
        hash_offsets=np.zeros(len(lines) + 1, np.int64),
        content_sha256=content.sha256(),
        source=str(path),
        **talk.columns(arrival_s),
    )
    trace = in_order(trace, np.frombuffer(lines, np.int64), strict, stamp=clock.column if clock else "")
    return replace(trace, warnings=(*warnings, *trace.warnings))


def split(line: bytes, where: str) -> list[str]:
    """The cells of one CSV line, without blanks around them. Raises InputError."""
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
        cells = next(csv.reader([text], strict=True)) if '"' in text else text.split(",")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a line of CSV in UTF-8 ({error})", where=where) from error
    return [cell.strip() for cell in cells]


def seconds_cell(text: str) -> float:
    """Seconds as a decimal number, 0 or later. Raises ValueError."""
    value = float(text)
    if not (text[:1].isdigit() and text.isascii() and "_" not in text and value < 2**53):
        raise ValueError
    return value


def _header(cells: list[str], layout: Layout, where: str) -> list[int]:
    """Places of the time (or of nothing: 0), input and output column."""
    for column in layout.columns:
        if cells.count(column) != 1:
            text = f"the header has {cells.count(column)} columns {column!r}, expected one"
            raise InputError(text, where=where, found=short(",".join(cells)))
    return [cells.index(column) if column else 0 for column in ("", *layout.columns)[-3:]]


def _optional(cells: list[str], column: str | None, where: str) -> int | None:
    """Place of a column that a file may lack."""
    if column is None or column not in cells:
        return None
    if cells.count(column) > 1:
        text = f"the header has {cells.count(column)} columns {column!r}, expected one at most"
        raise InputError(text, where=where, found=short(",".join(cells)))
    return cells.index(column)


def _on_failed(failed: array[int], path: Path, strict: bool) -> tuple[str, ...]:
    if not failed:
        return ()
    where = f"{path}:{failed[0]}"
    if strict:
        raise InputError("a request without output: it failed", where=where)
    return (f"{where}: {len(failed)} request(s) without output, which failed; dropped",)


def _refuse(time: str, tokens_in: str, layout: Layout, tokens_out: str, where: str) -> NoReturn:
    """Raises the InputError for the first bad cell, in the order of the layout."""
    clock = layout.clock
    if clock:
        try:
            clock.parse(time)
        except ValueError:
            raise InputError("", where=where, path=clock.column, found=time, allowed=clock.expected) from None
    for column, cell in ((layout.input, tokens_in), (layout.output, tokens_out)):
        if not (cell.isascii() and cell.isdigit() and 1 <= int(cell[:20]) <= MAX_TOKENS):
            allowed = f"a whole number from 1 to {MAX_TOKENS}"
            raise InputError("", where=where, path=column, found=cell, allowed=allowed)
    raise AssertionError("no bad cell")
