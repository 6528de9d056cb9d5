"""Where a run's exported tables lie: `tables/` of its directory, which goes with the run that it was made of."""

import contextlib
from pathlib import Path

FOLDER = "tables"
NAMES = ("metrics", "tiers", "links", "attribution")
FORMATS = ("csv", "md")


def only_exports(folder: Path) -> bool:
    """True if `folder` is a directory with nothing but exported tables in it."""
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {
        f"{n}.{f}" for n in NAMES for f in FORMATS
    }


def remove_exports(run_dir: Path) -> None:
    """Delete the exported tables of a run directory; what else lies beside them stays."""
    folder = run_dir / FOLDER
    for name in NAMES:
        for form in FORMATS:
            (folder / f"{name}.{form}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not there, or not empty
        folder.rmdir()
