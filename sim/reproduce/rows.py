"""What `kvsim reproduce` shows: published figures beside simulated ones, and the rules by which they are judged.

Strength of a source: R, read in the paper or its repository; S, read in an abstract or in somebody's notes on it; M,
recalled from memory; D, derived by arithmetic from what was read.

Kinds: *reproduced*, nothing was taken from the same paper; *calibrated*, the table says what was: constants fitted to
its figures, and statistics of attention that it published (traces.importance.facts names the system);
*arithmetic*, an identity of bytes, in which a simulator adds nothing; *ordering*, how many of the paper's orders hold;
*not comparable*, shown with the reason, and not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from sim.reproduce.cache_study import CacheStudy
from sim.reproduce.setting import Setting

Source = Literal["R", "S", "M", "D"]
Kind = Literal["reproduced", "calibrated", "arithmetic", "ordering", "not comparable"]

JUDGED: tuple[Kind, ...] = ("reproduced", "calibrated", "arithmetic", "ordering")
"""Kinds that are judged, each counted for itself: what was predicted first."""
MEDIAN, WIDE, SHARE = 0.15, 0.30, 0.90
"""Of a table that was read (R): the median of |ratio - 1|, and the band that this share of its rows lies in."""
NEAR = 0.25
"""Of a figure from an abstract (S): |ratio - 1|; of an "up to" figure: of the most in its paper's sweep."""


@dataclass(frozen=True)
class Figure:
    """One published number: `read(*measurements of settings)` is what the simulator has in its place.

    kind    in place of the table's
    note    why it may be off, or is not comparable
    """

    label: str
    published: float
    unit: str
    settings: tuple[Setting | CacheStudy, ...]
    read: Callable[..., float]
    kind: Kind | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Figures that are judged together: a table or a figure of a paper, or one sentence of its abstract.

    where    what the paper calls it; `setting`: model, machine, lengths, baseline in words
    fitted   what was taken from this paper to simulate it; then the kind is "calibrated"
    note     contradictions of the source, and what explains rows that are off
    quick    is one of the subset that runs in two minutes
    """

    system: str
    where: str
    source: Source
    setting: str
    figures: tuple[Figure, ...]
    kind: Kind = "reproduced"
    fitted: str = ""
    note: str = ""
    quick: bool = False


@dataclass(frozen=True)
class Row:
    """A published figure and its simulation. `simulated` is NaN where it could not be run; then the note says why.

    target      the rule in words
    target_met  None: not judged
    """

    system: str
    figure: str
    setting: str
    published: float
    simulated: float
    unit: str
    source: Source
    kind: Kind
    target: str
    target_met: bool | None
    note: str = ""

    @property
    def ratio(self) -> float:
        """Simulated over published; NaN if there is none."""
        return self.simulated / self.published if self.published else math.nan

    @property
    def counted(self) -> bool:
        """True if a miss counts: neither from memory nor incomparable."""
        return self.target_met is not None

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        return {
            "system": self.system,
            "figure": self.figure,
            "published": self.published,
            "simulated": _finite(self.simulated),
            "ratio": _finite(self.ratio),
            "source": self.source,
            "kind": self.kind,
            "target_met": self.target_met,
        }


@dataclass(frozen=True)
class Verdict:
    """How a table came out. met: None where nothing in it is judged."""

    table: Table
    rows: tuple[Row, ...]
    met: bool | None
    median_error: float
    within: float

    @property
    def text(self) -> str:
        """One line for people."""
        if self.met is None:
            return "not judged"
        word = "met" if self.met else "missed"
        judged = [row for row in self.rows if row.counted]
        if all(row.kind == "ordering" for row in judged):
            return f"{word}: {sum(bool(row.target_met) for row in judged)} of {len(judged)} orders hold"
        off = f"median error {self.median_error:.0%}" if math.isfinite(self.median_error) else "not all could run"
        if by_table(self.table):
            return f"{word}: {off}, {self.within:.0%} of {len(judged)} rows within {WIDE:.0%}"
        return f"{word}: {sum(bool(row.target_met) for row in judged)} of {len(judged)} rows within {NEAR:.0%}, {off}"


def by_table(table: Table) -> bool:
    """True if the rows are judged together: a table that was read, with more than one row."""
    return table.source == "R"


def row_of(table: Table, figure: Figure, simulated: float, trouble: str = "", *, absent: bool = False) -> Row:
    """The row of `figure`; `trouble` says why it could not be simulated, `absent` that it needs what is not here."""
    kind = figure.kind or table.kind
    notes = [text for text in (trouble, figure.note) if text]
    target, met = _judged(table, kind, figure.published, simulated)
    if absent:
        target, met = "needs a trace that is not on this machine: not judged", None
    return Row(
        table.system,
        f"{table.where}: {figure.label}",
        table.setting,
        figure.published,
        simulated,
        figure.unit,
        table.source,
        kind,
        target,
        met,
        "; ".join(notes),
    )


def _judged(table: Table, kind: Kind, published: float, simulated: float) -> tuple[str, bool | None]:
    if table.source == "M":
        return "from memory: not judged", None
    if kind == "not comparable":
        return "not comparable", None
    if math.isnan(simulated):
        return "must run", False
    if kind == "ordering":
        return "all hold", simulated >= published
    band = WIDE if by_table(table) else NEAR
    met = abs(simulated / published - 1) <= band
    return (f"within {band:.0%}" + (" (and the table's median)" if by_table(table) else ""), met)


def verdict(table: Table, rows: Sequence[Row]) -> Verdict:
    """Judge a table by its rows."""
    judged = [row for row in rows if row.counted]
    values = [row for row in judged if row.kind != "ordering"]
    errors = [math.inf if math.isnan(row.ratio) else abs(row.ratio - 1) for row in values]
    middle = median(errors) if errors else math.nan
    within = sum(error <= WIDE for error in errors) / len(errors) if errors else math.nan
    met: bool | None = None
    if judged:
        orders = all(row.target_met for row in judged if row.kind == "ordering")
        if by_table(table) and values:
            met = orders and middle <= MEDIAN and within >= SHARE
        else:
            met = all(row.target_met for row in judged)
    return Verdict(table, tuple(rows), met, middle, within)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
