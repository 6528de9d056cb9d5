"""Sections that the report of a run has only where its run has what they show.

To add one: a function (RunData, TimeAxis) -> Section | None in a file of its own, as reports/within.py has
`within_panel` (None where the run has no such part), and its line in PANELS with the section that it comes after.
"""

from collections.abc import Callable, Sequence

from reports.disaggregation import disaggregation_panel
from reports.document import Section
from reports.figures.base import TimeAxis
from reports.figures.prefetch import prefetch_figures
from reports.fleet import fleet_panel
from reports.front import index_panel, responses_panel
from reports.load import RunData
from reports.speculation import speculation_panel
from reports.tables import prefetch_table
from reports.within import within_panel

Panel = Callable[[RunData, TimeAxis], Section | None]


def prefetch_panel(run: RunData, axis: TimeAxis) -> Section | None:
    """What was fetched ahead of need, and what became of it; None without a prefetch policy."""
    table = prefetch_table(run)
    return Section("prefetch", "Prefetch", prefetch_figures(run, axis), [table]) if table else None


PANELS: tuple[tuple[str, Panel], ...] = (
    ("load", fleet_panel),
    ("flow", responses_panel),
    ("flow", index_panel),
    ("flow", within_panel),
    ("flow", prefetch_panel),
    ("flow", disaggregation_panel),
    ("flow", speculation_panel),
)
"""(key of the section before it, panel); those after the same section are in the order of this table."""


def with_panels(sections: Sequence[Section], run: RunData, axis: TimeAxis) -> list[Section]:
    """`sections`, each followed by the panels of the run that come after it."""
    found: list[Section] = []
    for section in sections:
        made = (panel(run, axis) for after, panel in PANELS if after == section.key)
        found += [section, *(one for one in made if one is not None)]
    return found
