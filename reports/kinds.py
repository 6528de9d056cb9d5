"""What a folder holds, and how its report is made again: a row for each kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.errors import InputError
from reports.compare_data import load_comparison
from reports.compare_report import sections as compare_sections
from reports.compare_report import write_compare_report
from reports.document import Section
from reports.load import load_run
from reports.page import limits_section, run_sections
from reports.plan_data import load_plan
from reports.plan_report import sections as plan_sections
from reports.plan_report import write_plan_report
from reports.run_report import write_run_report
from reports.sweep_data import load_sweep_runs
from reports.sweep_report import sections as sweep_sections
from reports.sweep_report import write_sweep_report


@dataclass(frozen=True)
class Kind:
    """A kind of folder. marks: files or folders of which it has one; write: (folder, page or None) -> page."""

    name: str
    marks: Sequence[str]
    page: str
    write: Callable[[Path, Path | None], Path]
    sections: Callable[[Path], Sequence[Section]]


def _of_run(folder: Path) -> list[Section]:
    run = load_run(folder)
    return [limits_section(run), *run_sections(run)]


KINDS = (
    Kind(
        "comparison",
        ("compare.json",),
        "compare.html",
        write_compare_report,
        lambda folder: compare_sections(load_comparison(folder)),
    ),
    Kind(
        "sweep",
        ("sweep.json", "rows"),
        "sweep.html",
        write_sweep_report,
        lambda folder: sweep_sections(load_sweep_runs(folder)),
    ),
    Kind("plan", ("plan.json",), "plan.html", write_plan_report, lambda folder: plan_sections(load_plan(folder))),
    Kind("run", ("summary.json", "scenario.yaml", "requests.parquet"), "report.html", write_run_report, _of_run),
)
OTHERS = (
    ("cache.json", "kvsim cache", "cache.html"),
    ("reproduce.json", "kvsim reproduce", "reproduce.html"),
    ("profiles.html", "kvsim calibrate show", "profiles.html"),
    ("samples.jsonl", "kvsim calibrate run", "the profile of `kvsim calibrate fit`"),
)
"""(file, verb, its page): folders whose page has no other source than the verb itself."""


def kind_of(folder: Path) -> Kind:
    """The kind of `folder`. Raises InputError, one line, if it has no report that could be made from it."""
    if not folder.is_dir():
        raise InputError("not a run directory (no such folder)", where=folder)
    for kind in KINDS:
        if any((folder / mark).exists() for mark in kind.marks):
            return kind
    for name, verb, page in OTHERS:
        if (folder / name).exists():
            raise InputError(f"`{verb}` wrote this, and makes {page} itself: run it again", where=folder)
    allowed = ", ".join(f"{kind.marks[0]} ({kind.name})" for kind in KINDS)
    raise InputError("holds nothing that a report is made from", where=folder, allowed=f"a folder with {allowed}")
