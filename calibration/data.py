"""Where public measurements are: KVSIM_DATA, the folder above KVSIM_TRACES, or ../shared/data."""

from __future__ import annotations

import os
from pathlib import Path

from hw_profiles.errors import InputError


def data_folder(inside: str = "kernels") -> Path:
    """The folder that holds `inside`. Raises InputError that names what was tried."""
    given, traces = os.environ.get("KVSIM_DATA"), os.environ.get("KVSIM_TRACES")
    tried = [Path(given)] if given else []
    tried += [Path(traces).parent] if traces else []
    tried += [Path("..") / "shared" / "data", Path(__file__).parents[2] / "shared" / "data"]
    for folder in tried:
        if (folder / inside).is_dir():
            return folder
    raise InputError(
        f"no public measurements: set KVSIM_DATA to the folder that holds {inside}/",
        found=f"no {inside}/ in {', '.join(map(str, tried))}",
    )
