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
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in types}
        self._texts: dict[str, dict[str, int]] = {name: {} for name, kind in types.items() if kind == "str"}
        self._rows: list[tuple[Any, ...]] = []
        self._flushed = 0

    def append(self, *row: object) -> None:
        """Append one row, in the order of the columns."""
        rows = self._rows
        rows.append(row)
        if len(rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        for (name, kind), values in zip(self.types.items(), zip(*self._rows, strict=True), strict=True):
            if kind == "str":
                places = self._texts[name]
                part = np.array([places.setdefault(text, len(places)) for text in values], dtype=np.int32)
            else:
                part = np.array(values, dtype=kind)
            self._parts[name].append(part)
        self._flushed += len(self._rows)
        self._rows.clear()

    def numbers(self, name: str) -> np.ndarray:
        """A column: of its type, or the int32 places of its texts."""
        self._flush()
        parts = self._parts[name]
        if len(parts) != 1:
            kind = self.types[name]
            parts[:] = [np.concatenate(parts) if parts else np.zeros(0, "int32" if kind == "str" else kind)]
        return parts[0]

    def sort(self, by: str) -> None:
        """Put the rows in ascending order of a column of different numbers."""
        order = np.argsort(self.numbers(by))
        for name in self.types:
            self._parts[name][:] = [self.numbers(name)[order]]

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
