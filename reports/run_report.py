"""`report.html` of a run directory: called by `kvsim run` and `kvsim report DIR`."""

from pathlib import Path

from hw_profiles.files import write_atomic
from reports.load import load_run
from reports.page import render


def write_run_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the report of `run_dir` to `out` (default `run_dir/report.html`) and return where it is.

    The file is complete or absent. InputError, one line, when a table or the summary is missing,
    unreadable or of another version.
    """
    target = out if out is not None else run_dir / "report.html"
    write_atomic(target, render(load_run(run_dir)))
    return target
