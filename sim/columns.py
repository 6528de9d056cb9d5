"""Append-only columns of numbers and texts, in as little memory as their rows take in a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ROWS = 4096
"""Rows that are held as they came before they go into columns: together that is faster."""


class Columns:
    """Rows of values, kept by column: numbers in numpy's types, texts ("str") as int32 places in a list of them."""

    def __init__(self, types: dict[str, str]) -> None:
        self.types = types
        self._data = {name: np.empty(ROWS, "int32" if kind == "str" else kind) for name, kind in types.items()}
        self._texts: dict[str, dict[str, int]] = {name: {} for name, kind in types.items() if kind == "str"}
        self._rows: list[tuple[Any, ...]] = []
        self._flushed = 0

    def append(self, row: tuple[object, ...]) -> None:
        """Append one row, in the order of the columns."""
        rows = self._rows
        rows.append(row)
        if len(rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        start, end = self._flushed, len(self)
        for name, values in zip(self.types, zip(*self._rows, strict=True), strict=True):
            data = self._data[name]
            if end > len(data):  # by a half, one array at a time: joining parts at the end would take twice as much
                data = np.empty(max(end, len(data) * 3 // 2), data.dtype)
                data[:start] = self._data[name][:start]
                self._data[name] = data
            places = self._texts.get(name)
            data[start:end] = values if places is None else [places.setdefault(text, len(places)) for text in values]
        self._flushed = end
        self._rows.clear()

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
        self._flush()
        return list(self._texts[name])

    def among(self, name: str, *texts: str) -> npt.NDArray[np.bool_]:
        """Where a column has one of these texts: bool[n]."""
        codes = self.numbers(name)
        return np.isin(codes, [place for text, place in self._texts[name].items() if text in texts])

    def __len__(self) -> int:
        return self._flushed + len(self._rows)
