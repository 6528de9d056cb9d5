"""`profiles.html`: profiles side by side and the measurements behind them, by `kvsim calibrate show --out`."""

from pathlib import Path

from calibration.compare import Comparison
from hw_profiles.files import write_atomic
from hw_profiles.profile import Profile
from reports.document import Section, document
from reports.figures.calibration import fit_choices, scatter_figure
from reports.tables import TextTable
from reports.text import KIND_LABELS, number, percent

KNOWN = (
    "The worst held-out error is the mean error, over points that no fit has seen, of the kernel that is predicted "
    "worst. Sequences and context of decode steps, new tokens of prefill launches: the range that was fitted (for "
    "estimates: of the machine that they are carried over from); a run says how much of its time lies outside."
)
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
    sections = [Section("known", "How they are known", [], [known_table(table)])]
    if measured:
        sections += [
            Section("all", "Predicted and measured", [scatter_figure(measured)]),
            Section("kernels", "Errors by kernel", fit_choices(measured)),
        ]
    return document(
        "profiles.html.j2",
        scripts=("explore.js",),
        names=table.names,
        facts=[("profiles", str(len(table.names))), ("kernels with points", str(len(measured)))],
        sections=sections,
        tables=list(table.sections.items()),
        missing=[*table.missing, *(() if measured else (nothing_drawn(table),))],
        notes=NOTES,
    )


def known_table(table: Comparison) -> TextTable:
    """Of each profile: how its kernel times are known, the worst of their errors, and the range that was fitted."""
    columns = ["Profile", "Kernel times", "Kernels", "Worst held-out error", "Sequences", "Context", "New tokens"]
    return TextTable("known-table", "Kind, errors and range", KNOWN, columns, [_known(p) for p in table.profiles], (3,))


def _known(profile: Profile) -> list[str]:
    """Its row. The errors are mean errors, of the kernel that is worst."""
    name, worst = max(profile.heldout.items(), key=lambda item: item[1].mape, default=("", None))
    error = f"{percent(worst.mape)} ({name})" if worst else "none was measured"
    box = profile.validity
    ranges = [f"{number(low)} to {number(high)}" for low, high in (box.batch, box.seq, box.prefill)]
    family = profile.kernels.family.get("decode_attn") or carried(profile)
    return [profile.name, KIND_LABELS.get(profile.kind, profile.kind), family, error, *ranges]


def carried(profile: Profile) -> str:
    """What the source of its decode attention says, for kernels of no family: up to its first bracket."""
    entry = profile.entries.get("kernels.decode_attn.bandwidth")
    return "" if entry is None else entry.source_text.removeprefix("estimate: ").partition(" (")[0]


def nothing_drawn(table: Comparison) -> str:
    """Why there are no figures."""
    if all(profile.kind == "datasheet" for profile in table.profiles):
        return (
            "These profiles are estimated from datasheets: none of their kernels was measured, so no points are shown."
        )
    return "no measurements at hand: set KVSIM_DATA for figures"
