"""Tables of measurements: read whole and checked, or refused in one line.

A table is columns of one length. Refused: a file that is missing, cut off or of another kind, a column that is missing,
a time that is not a positive number, a size that no call has, rows of more than one device, a decode table that is
faster than its memory, products or prefill that are faster than the datasheet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from calibration.fitting import Array, Mask
from hw_profiles.errors import InputError
from hw_profiles.units import format_rate

Column = NDArray[Any]
TIMES = ("latency", "time_us")
"""Columns of measured times."""
LEAST: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"), 1),
        **dict.fromkeys(("m", "n", "k", "num_tokens", "topk", "num_experts", "hidden_size", "inter_size"), 1),
        **dict.fromkeys(("moe_tp_size", "num_gpus", "message_size", "tokens", "sequences"), 1),
        **dict.fromkeys(("step", "prefill_chunk", "kv_prefill", "n_decode", "kv_decode"), 0),
    }
)
"""Columns of sizes, and the least that each may be."""
CLOCKS = 1.05
"""Share of a datasheet's peak that a row may reach: clocks may be above the datasheet's."""


class Table:
    """Columns by name, of the file `path`."""

    def __init__(self, path: Path, columns: Mapping[str, Column]) -> None:
        self.path = path
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def text(self, name: str) -> Column:
        """A column as it is."""
        if name not in self.columns:
            raise InputError("missing column", where=self.path, found=name, allowed=tuple(self.columns))
        return self.columns[name]

    def numbers(self, name: str) -> Array:
        """A column of finite numbers. Raises InputError."""
        try:
            values = np.asarray(self.text(name), dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("a column that is not numbers", where=self.path, path=name) from None
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(
                f"row {row + 1} has no number", where=self.path, path=name, found=str(self.text(name)[row])
            )
        return values

    def times(self, name: str, unit: float) -> Array:
        """A column of times > 0, times `unit` in seconds. Raises InputError."""
        values = self.numbers(name) * unit
        if not (values > 0).all():
            row = int(np.flatnonzero(values <= 0)[0])
            found = float(self.numbers(name)[row])
            raise InputError(f"row {row + 1} is not a time", where=self.path, path=name, found=found, allowed="above 0")
        return values

    def where(self, keep: Mask) -> Table:
        """The rows of a mask."""
        return Table(self.path, {name: values[keep] for name, values in self.columns.items()})

    def equal(self, **same: object) -> Table:
        """The rows where every column that the table has holds that value (or one of a tuple)."""
        keep: Mask = np.ones(len(self), dtype=bool)
        for name, value in same.items():
            if name in self.columns:
                options = value if isinstance(value, tuple) else (value,)
                keep &= np.isin(self.columns[name], np.array(options, dtype=self.columns[name].dtype))
        return self.where(keep)


def read_table(path: Path, required: Collection[str]) -> Table:
    """A parquet or CSV file with at least the columns `required`; times above 0, sizes `LEAST`. Raises InputError."""
    if not path.is_file():
        raise InputError("file not found", where=path)
    try:
        found = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        kind = "CSV" if path.suffix == ".csv" else "parquet"
        reason = str(error).splitlines()[0].replace(f"'{path}': ", "").rstrip(".")
        raise InputError(f"not a whole {kind} file ({reason})", where=path) from None
    names = found.column_names
    for name in required:
        if name not in names:
            raise InputError("missing column", where=path, found=name, allowed=tuple(names))
    if not found.num_rows:
        raise InputError("no rows", where=path)
    table = Table(path, {name: found[name].to_numpy(zero_copy_only=False) for name in names})
    for name in TIMES:
        if name in required:
            table.times(name, 1.0)
    for name in LEAST:
        if name in names:
            _check_sizes(table, name)
    return table


def _check_sizes(table: Table, name: str) -> None:
    values = table.numbers(name)
    if (values < LEAST[name]).any():
        row = int(np.argmax(values < LEAST[name]))
        allowed = f"at least {LEAST[name]}"
        raise InputError(
            f"row {row + 1} is not a size", where=table.path, path=name, found=float(values[row]), allowed=allowed
        )


def one_device(tables: Iterable[Table]) -> str:
    """The device that all rows of all tables were measured on. Raises InputError when there are two."""
    seen: dict[str, Path] = {}
    for table in tables:
        if "device" in table:
            for name in dict.fromkeys(map(str, table.text("device"))):
                seen.setdefault(name, table.path)
    if len(seen) > 1:
        (first, _), (other, path), *_ = seen.items()
        raise InputError("rows of two devices in one import", where=path, path="device", found=other, allowed=first)
    return next(iter(seen), "")


def check_rate(path: Path, nbytes: Array, seconds: Array, peak: float) -> None:
    """Raise InputError when any row reads `nbytes`, more than L2 holds, faster than the memory's `peak` (bytes/s).

    Good tables stay below 0.97 of it and impossible ones exceed 1.6; between them a twentieth is allowed for clocks
    above the datasheet's.
    """
    rate = float((nbytes / seconds).max(initial=0.0))
    if rate > CLOCKS * peak:
        problem = "impossible table: it has decode attention read KV faster than the peak of the memory"
        raise InputError(problem, where=path, found=format_rate(rate), allowed=f"at most {format_rate(peak)}")


def check_flops(path: Path | str, what: str, flops: Array, seconds: Array, peak: float | None) -> None:
    """Raise InputError when any row of `what` computes faster than the machine's `peak` (FLOP/s; None: not known).

    Of public tables the fastest rows reach 1.005 of it (bf16 products on an RTX 4090).
    """
    rate = float((flops / seconds).max(initial=0.0))
    if peak is not None and rate > CLOCKS * peak:
        found, most = (f"{each / 1e12:.4g} TFLOP/s" for each in (rate, peak))
        problem = f"impossible table: it has {what} faster than the peak of the datasheet"
        raise InputError(problem, where=path, found=found, allowed=f"at most {most}")
