"""All tables of the systems asked for: their settings run once each, on the cores there are, and rows made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from sim.reproduce.cache_study import Absent, CacheStudy, Hits
from sim.reproduce.measure import Failed, Measured, measure
from sim.reproduce.rows import Figure, Row, Table, Verdict, row_of, verdict
from sim.reproduce.setting import Setting
from sim.whatif.pool import run_all

Answer = Measured | Failed | Hits | Absent


def settings_of(tables: Sequence[Table]) -> list[Setting | CacheStudy]:
    """Every setting that the tables need, each once."""
    found = {s.key: s for table in tables for figure in table.figures for s in figure.settings}
    return list(found.values())


def reproduce(
    tables: Sequence[Table], *, workers: int, progress: Callable[[int, int], None] | None = None
) -> list[Verdict]:
    """Run what `tables` need and judge them, in their order; `progress` is called with (runs done, runs in all)."""
    settings = settings_of(tables)
    finished = 0

    def tick(_: int, __: Answer) -> None:
        nonlocal finished
        finished += 1
        if progress is not None:
            progress(finished, len(settings))

    def lost(_: Setting | CacheStudy, why: str) -> Answer:
        return Failed(why)

    answers = run_all(measure, settings, workers=workers, done=tick, lost=lost)
    by_key = {setting.key: answer for setting, answer in zip(settings, answers, strict=True)}
    return [verdict(table, [_row(table, figure, by_key) for figure in table.figures]) for table in tables]


def _row(table: Table, figure: Figure, by_key: Mapping[str, Answer]) -> Row:
    answers = [by_key[setting.key] for setting in figure.settings]
    absent = [answer.why for answer in answers if isinstance(answer, Absent)]
    failed = [answer.why for answer in answers if isinstance(answer, Failed)]
    if absent:
        return row_of(table, figure, math.nan, f"cannot run: {absent[0]}", absent=True)
    if failed:
        return row_of(table, figure, math.nan, f"cannot run: {failed[0]}")
    return row_of(table, figure, float(figure.read(*answers)))
