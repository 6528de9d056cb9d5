"""`profiles.html`: profiles side by side and the measurements behind them, by `kvsim calibrate show --out`."""

from pathlib import Path

from calibration.compare import Comparison
from hw_profiles.files import write_atomic
from reports.document import Section, document
from reports.figures.calibration import fit_figures, scatter_figure

NOTES = (
    "A fit sees every second value of each axis of a table (its ends kept), and no matrix shape whose SHA-256 of "
    '"n,k" is even. All other points are held out.',
    "Decode attention: only rows whose KV exceeds twice the L2, or is too little to matter, since benchmarks read one "
    "buffer again and again and an engine does not.",
    "Errors are relative: predicted / measured - 1.",
)


def write_profiles_report(table: Comparison, folder: Path) -> Path:
    """Write `folder/profiles.html` and return where it is. The file is complete or absent. Raises InputError."""
    target = folder / "profiles.html"
    write_atomic(target, render(table))
    return target


def render(table: Comparison) -> str:
    """The whole page as one HTML document."""
    measured = list(table.measured)
    sections = []
    if measured:
        sections = [
            Section("all", "Predicted and measured", [scatter_figure(measured)]),
            Section("kernels", "Errors by kernel", fit_figures(measured)),
        ]
    return document(
        "profiles.html.j2",
        names=table.names,
        facts=[("profiles", str(len(table.names))), ("kernels measured", str(len(measured)))],
        sections=sections,
        tables=list(table.sections.items()),
        missing=[*table.missing, *(() if measured else ("no measurements at hand: set KVSIM_DATA for figures",))],
        notes=NOTES,
    )
