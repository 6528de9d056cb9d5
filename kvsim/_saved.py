"""A run that was read back from its directory, with what a notebook asks for on top: figures and short tables."""

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


def load(run_dir: str | Path) -> SavedRun:
    """Read a run directory back. Raises InputError for what is missing, corrupt or of another schema."""
    found = Result.load(run_dir)
    return SavedRun(
        found.summary,
        found.tables,
        found.scenario_yaml,
        found.profile_values,
        found.cache_state,
        path=Path(run_dir).absolute(),
    )
