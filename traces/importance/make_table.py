"""`python -m traces.importance.make_table [DIR]`: simulate the tables that ship beside this file (12 minutes)."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

from hw_profiles.files import write_atomic
from traces.importance import coverage, grid
from traces.importance.pages import SETTINGS


def main(folder: Path) -> None:
    """Write the tables of all settings as float32: coverage [kept, pages], recalls [selected, cached, pages]."""
    for path, make in ((coverage.PATH, coverage.make_coverage), (grid.PATH, grid.make_grid)):
        tables = {name: make(name).astype(np.float32) for name in SETTINGS}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **tables)
        write_atomic(folder / path.name, buffer.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else grid.PATH.parent)
