"""How verbs print: tables and one-line messages for people, one JSON document for programs."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

WIDE = 120
"""Columns of a table that goes into a file or a pipe, where there is no terminal to ask."""

GAP = 2
"""Columns between two cells."""
NARROWEST_FOLD = 16
"""Columns that text which may fold keeps at least."""


class Column(NamedTuple):
    """Heading of a table's column; numbers align right, and `fold` may break over lines."""

    title: str
    right: bool = False
    fold: bool = False


class Aside(io.TextIOBase):
    """In place of stdout where that has one document: what others print, a user's policy say, goes to stderr."""

    def __init__(self, stdout: TextIO) -> None:
        self.stdout = stdout

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def line(text: str = "") -> None:
    """Print `text` on stdout. A reader that went away (`| head`) is no error."""
    out = sys.stdout.stdout if isinstance(sys.stdout, Aside) else sys.stdout
    try:
        print(text, flush=True, file=out)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def note(text: str) -> None:
    """Print `text` on stderr, where it does not disturb a document on stdout."""
    print(" ".join(text.split()), file=sys.stderr, flush=True)


def document(value: Any) -> None:
    """Print `value` as the one JSON document of this call; what is not a number becomes null."""
    line(json.dumps(plain(value), indent=2, allow_nan=False))


def table(columns: Sequence[str | Column], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table of ready-made strings; one that is wider than the terminal is printed whole, not cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        heading = Column(column) if isinstance(column, str) else column
        grid.add_column(
            heading.title,
            justify="right" if heading.right else "left",
            no_wrap=not heading.fold,
            overflow="fold",
        )
    rows = list(rows)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))  # Text: a bracket in a value is not markup
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else WIDE
    console = Console(width=width, force_terminal=terminal, highlight=False)
    console.width = max(width, _least_width(columns, rows))
    with console.capture() as captured:
        console.print(grid)
    rows_shown = [row.rstrip() for row in captured.get().splitlines()]
    line("\n".join(row for row in rows_shown if row) + "\n")


def _least_width(columns: Sequence[str | Column], rows: Sequence[Sequence[str]]) -> int:
    """Columns of the screen that the table needs so that nothing but what may fold is broken."""
    least = 1
    for index, column in enumerate(columns):
        heading = Column(column) if isinstance(column, str) else column
        cells = [heading.title, *(row[index] for row in rows if index < len(row))]
        longest = max(len(cell) for cell in cells)
        least += GAP + (min(longest, NARROWEST_FOLD) if heading.fold else longest)
    return least


def plain(value: Any) -> Any:
    """`value` as JSON takes it: mappings, lists, text, finite numbers and null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return plain(value.item())
    return str(value)
