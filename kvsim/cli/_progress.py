"""The progress bar of a simulation, on stderr and only on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tick = Callable[[float, float, int, int], None]
"""Called with simulated seconds so far, simulated seconds expected, requests done, requests in all."""

INTERVAL_S = 0.1
"""Wall seconds between two redraws: drawing costs about a millisecond."""


@contextmanager
def simulation_bar(wanted: bool) -> Iterator[Tick | None]:
    """Yield a callback that draws progress, or None where there is nobody to see it."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("simulated {task.fields[clock]}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} / {task.total:,.0f} requests"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=1, clock="", visible=False)  # until there is something to show
        due = 0.0

        def tick(now_s: float, span_s: float, done: int, total: int) -> None:
            nonlocal due
            wall = time.monotonic()
            if wall < due and done < total:
                return
            due = wall + INTERVAL_S
            clock = f"{now_s:,.0f} of about {max(now_s, span_s):,.0f} s"
            bar.update(task, completed=done, total=total, clock=clock, visible=True, refresh=True)

        yield tick


@contextmanager
def byte_bar(wanted: bool, what: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """Yield a callback (bytes done, bytes in all or None) that draws a download; None where nobody sees."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def count_bar(wanted: bool, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (done, in all) that draws progress; None where nobody sees."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    left = TextColumn("left:")
    columns = (MofNCompleteColumn(), TextColumn(what), BarColumn(), TimeElapsedColumn(), left, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
