"""Append-only columns of numbers and texts, in as little memory as their rows take in a file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

ROWS = 4096
"""Rows that are held as they came before they go into columns: together that is faster."""
CODES = {"int16": "h", "int32": "i", "int64": "q", "float64": "d", "str": "i"}
"""Types of columns, and how `struct` writes their values; of a text the place in a list."""
MOST_SUMMANDS = 1 << 20
"""Numbers that are held to be summed."""
_NOTHING = np.zeros(1)


class Columns:
    """Rows of values, kept by column: numbers in numpy's types, texts ("str") as int32 places in a list of them.

    summed: the column whose values may come as arrays to be summed.
    """

    def __init__(self, types: dict[str, str], summed: str = "") -> None:
        self.types = types
        self._summed = summed
        kinds = {name: "int32" if kind == "str" else kind for name, kind in types.items()}
        self._data: dict[str, np.ndarray] = {name: np.empty(ROWS, kind) for name, kind in kinds.items()}
        self._texts: dict[str, dict[str, int]] = {name: {} for name, kind in types.items() if kind == "str"}
        self._places = [(list(types).index(name), places) for name, places in self._texts.items()]
        self._row = struct.Struct("=" + "".join(CODES[kind] for kind in types.values()))
        self._pack = self._row.pack
        self._dtype = np.dtype(list(kinds.items()))
        self._held = bytearray()
        """Rows that are not in the columns yet, packed."""
        self._parts: list[np.ndarray] = []
        """What is summed for `_part_rows` of them; before each a zero, which `np.add.reduceat` begins a sum with."""
        self._part_rows: list[int] = []
        self._summands = 0
        self._most = ROWS * self._row.size
        self._flushed = 0

    def append(self, row: tuple[object, ...], summed: np.ndarray | None = None) -> None:
        """Append one row, in the order of the columns. Raises OverflowError for a number that its type cannot hold.

        The sum of `summed`, float64[n], takes the place of the row's value in the column that is named so: sums of many
        rows at a time take less, and have the bits of `np.add.reduce`.
        """
        if summed is not None:
            self._parts += (_NOTHING, summed)
            self._part_rows.append(len(self._held) // self._row.size)
            self._summands += len(summed)
        if self._places:
            row = self._coded(row)
        try:
            self._held += self._pack(*row)
        except struct.error:
            self._held += np.array([row], self._dtype).tobytes()  # as numpy takes it, or refuses it
        if len(self._held) >= self._most or self._summands >= MOST_SUMMANDS:
            self._flush()

    def extend(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Append many rows: as `append` of each, in less time. Raises OverflowError."""
        rows = iter(rows)
        while part := list(islice(rows, ROWS)):
            columns: list[Sequence[object]] = list(zip(*part, strict=True))
            for at, places in self._places:
                texts = [str(text) for text in columns[at]]
                for text in dict.fromkeys(texts):
                    places.setdefault(text, len(places))
                columns[at] = [places[text] for text in texts]
            self._flush()
            packed = np.empty(len(part), self._dtype)
            for name, column in zip(self.types, columns, strict=True):
                packed[name] = column
            self._held += packed.tobytes()

    def _coded(self, row: tuple[object, ...]) -> tuple[object, ...]:
        """The row with places for its texts."""
        values = list(row)
        for at, places in self._places:
            text = str(values[at])
            place = places.get(text)
            if place is None:
                place = places[text] = len(places)
            values[at] = place
        return tuple(values)

    def _flush(self) -> None:
        if not self._held:
            return
        rows = np.frombuffer(self._held, self._dtype)
        if self._parts:
            starts = np.cumsum([0, *[len(part) for part in self._parts]])[:-2:2]
            rows[self._summed][self._part_rows] = np.add.reduceat(np.concatenate(self._parts), starts)
            self._parts, self._part_rows, self._summands = [], [], 0
        start, end = self._flushed, self._flushed + len(rows)
        for name in self.types:
            data = self._data[name]
            if end > len(data):  # by a half, one array at a time: joining parts at the end would take twice as much
                data = np.empty(max(end, len(data) * 3 // 2), data.dtype)
                data[:start] = self._data[name][:start]
                self._data[name] = data
            data[start:end] = rows[name]
        self._flushed = end
        self._held = bytearray()

    def numbers(self, name: str) -> np.ndarray:
        """A column: of its type, or the int32 places of its texts."""
        self._flush()
        return self._data[name][: self._flushed]

    def sort(self, by: str) -> None:
        """Put the rows in ascending order of a column of different numbers."""
        order = np.argsort(self.numbers(by))
        for name in self.types:
            self._data[name] = self.numbers(name)[order]

    def texts(self, name: str) -> list[str]:
        """Every text of a column once, in order of its first appearance."""
        return list(self._texts[name])

    def among(self, name: str, *texts: str) -> npt.NDArray[np.bool_]:
        """Where a column has one of these texts: bool[n]."""
        codes = self.numbers(name)
        return np.isin(codes, [place for text, place in self._texts[name].items() if text in texts])

    def __len__(self) -> int:
        return self._flushed + len(self._held) // self._row.size
