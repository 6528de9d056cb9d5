"""Reader of BurstGPT: CSV, plain or gzip, no prefix information.

`Timestamp` (s from midnight of the first day), `Request tokens`, `Response tokens`; release v2.0 adds `Session ID` (of
conversations; API calls may have none) and `Elapsed time` (s until the answer was complete), so columns are found by
name. A request with 0 response tokens failed.
SOURCE: HPMLL/BurstGPT, README.md (Schema; the two columns are in BurstGPT_3.csv of release v2.0).
"""

from __future__ import annotations

from pathlib import Path

from traces.request import Trace
from traces.table import Clock, Layout, read_table, seconds_cell

KEYS = ("Timestamp", "Request tokens", "Response tokens")


def read_burstgpt(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace (arrival as in the file, s), with conversations where the file has them.

    A turn waited from the end of the one before (arrival + elapsed time) to its own arrival, or not at all if that is
    negative: times are in whole seconds.

    Failed requests are dropped and lines out of order sorted, each with one line in `Trace.warnings`; `strict`
    refuses both. Raises InputError for all else.
    """
    clock = Clock("Timestamp", seconds_cell, "seconds, 0 or later")
    layout = Layout(
        clock, "Request tokens", "Response tokens", failed=True, session="Session ID", elapsed="Elapsed time"
    )
    return read_table(Path(path), layout, strict=strict, name=name)
