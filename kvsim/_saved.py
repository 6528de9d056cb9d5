"""What was read back from a folder that a verb wrote, with what a notebook asks for: figures, frames, short tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sim.result import Result


@dataclass(frozen=True)
class SavedRun(Result):
    """A Result from a run directory. `figures` and `sheets` are those of its report, made on first use."""

    path: Path = field(kw_only=True)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The figures of the report by name, as plotly.graph_objects.Figure.

        `figure.show()` draws one. Raises InputError if the directory has changed and cannot be read any more.
        """
        from reports.notebook import figures

        return figures(self.path)

    @cached_property
    def sheets(self) -> dict[str, Any]:
        """The tables that `kvsim report --tables` writes (metrics, tiers, links, attribution), as pandas frames."""
        import pandas as pd

        from reports.sheets import sheets

        return {sheet.name: pd.DataFrame(sheet.rows, columns=list(sheet.columns)) for sheet in sheets(self.summary)}


@dataclass(frozen=True)
class SavedStudy:
    """What `kvsim compare`, `sweep`, `plan` or `cache` wrote with --out: its document, and what its page shows.

    kind       comparison, sweep, plan or cache study
    document   the JSON document of the folder, as it is
    frames     its tables as pandas frames, by name (docs/notebook.md)
    """

    kind: str
    path: Path
    document: Any = field(repr=False)
    frames: dict[str, Any] = field(repr=False)
    _data: Any = field(repr=False)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The figures of the page by name, as plotly.graph_objects.Figure. `figure.show()` draws one."""
        from reports.kinds import sections_of
        from reports.notebook import drawn

        return drawn(sections_of(self.kind, self._data))

    @cached_property
    def runs(self) -> dict[str, SavedRun]:
        """Of a comparison: the first run of each variant by its label. Others keep no run directories: none.

        Raises InputError if they have changed and cannot be read any more.
        """
        variants = self.document["variants"] if self.kind == "comparison" else []
        return {one["label"]: _run(self.path / one["run"]) for one in variants}


def load(folder: str | Path) -> SavedRun | SavedStudy:
    """Read back what a verb wrote with --out: a run directory, or a comparison, sweep, plan or cache study.

    Raises InputError, one line, for what is missing, corrupt or of another version.
    """
    from reports.kinds import RUN, kind_of

    place = Path(folder).absolute()
    kind = kind_of(Path(folder))
    if kind.name == RUN:
        return _run(Path(folder))
    import pandas as pd

    data, document = kind.read(Path(folder)), kind.document(Path(folder))
    frames = {name: pd.DataFrame(rows) for name, rows in kind.rows_of(Path(folder), document).items()}
    return SavedStudy(kind.name, place, document, frames, data)


def _run(folder: Path) -> SavedRun:
    found = Result.load(folder)
    return SavedRun(
        found.summary,
        found.tables,
        found.scenario_yaml,
        found.profile_values,
        found.cache_state,
        path=folder.absolute(),
    )
