"""Reader of BurstGPT: CSV, plain or gzip, no prefix information.

`Timestamp` (s from midnight of the first day), `Request tokens`, `Response tokens`; newer copies add
`Session ID` and `Elapsed time`, so columns are found by name. A request with 0 response tokens failed.
SOURCE: HPMLL/BurstGPT, README.md (Schema).
"""

from __future__ import annotations

from pathlib import Path

from traces.request import Trace
from traces.table import Clock, Layout, read_table, seconds_cell

KEYS = ("Timestamp", "Request tokens", "Response tokens")


def read_burstgpt(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace (arrival as in the file, s); sessions are not read.

    Failed requests are dropped and lines out of order sorted, each with one line in `Trace.warnings`; `strict`
    refuses both. Raises InputError for all else.
    """
    clock = Clock("Timestamp", seconds_cell, "seconds, 0 or later")
    layout = Layout(clock, "Request tokens", "Response tokens", failed=True)
    return read_table(Path(path), layout, strict=strict, name=name)
