"""What a folder holds, and how its report is made again: a row for each kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from reports import cache_data, compare_report, page, plan_report, study_rows, sweep_report
from reports.compare_data import load_comparison
from reports.document import Section
from reports.documents import as_written, read_json
from reports.load import load_run
from reports.plan_data import load_plan
from reports.study_rows import Rows
from reports.sweep_data import load_sweep_runs


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    marks     files or folders of which it has one; the first is the document that says all, but for runs
    page      the report's file in the folder
    read      what the folder holds, as the next two take it; InputError, one line, where it cannot be read
    render    the page
    sections  its sections with figures and tables
    rows      tables of the document, by name; runs have theirs in files of their own
    """

    name: str
    marks: Sequence[str]
    page: str
    read: Callable[[Path], Any]
    render: Callable[[Any], str]
    sections: Callable[[Any], Sequence[Section]]
    rows: Callable[[Any], Mapping[str, Rows]] | None = None

    def document(self, folder: Path) -> Any:
        """The JSON document of the folder."""
        return read_json(folder / self.marks[0])

    def rows_of(self, folder: Path, document: Any) -> Mapping[str, Rows]:
        """Tables of the folder's document. Raises InputError, one line."""
        with as_written(folder / self.marks[0]):
            return {} if self.rows is None else self.rows(document)


RUN = "run"
KINDS = (
    Kind(
        "comparison",
        ("compare.json",),
        "compare.html",
        load_comparison,
        compare_report.render,
        compare_report.sections,
        study_rows.of_comparison,
    ),
    Kind(
        "sweep",
        ("sweep.json", "rows"),
        "sweep.html",
        load_sweep_runs,
        sweep_report.render,
        sweep_report.sections,
        study_rows.of_sweep,
    ),
    Kind(
        "plan",
        ("plan.json",),
        "plan.html",
        load_plan,
        plan_report.render,
        plan_report.sections,
        study_rows.of_plan,
    ),
    Kind(
        "cache study",
        ("cache.json",),
        "cache.html",
        cache_data.load_study,
        cache_data.render,
        cache_data.sections,
        study_rows.of_cache_study,
    ),
    Kind(
        RUN,
        ("summary.json", "scenario.yaml", "requests.parquet"),
        "report.html",
        load_run,
        page.render,
        page.every_section,
    ),
)
OTHERS = (
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
    for name, verb, made in OTHERS:
        if (folder / name).exists():
            raise InputError(f"`{verb}` wrote this, and makes {made} itself: run it again", where=folder)
    allowed = ", ".join(f"{kind.marks[0]} ({kind.name})" for kind in KINDS)
    raise InputError("holds nothing that a report is made from", where=folder, allowed=f"a folder with {allowed}")


def sections_of(kind: str, data: Any) -> Sequence[Section]:
    """The sections of the page of what a kind of that name has read."""
    return next(one for one in KINDS if one.name == kind).sections(data)


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of `folder` to the file `out` (default: its place in `folder`) and return where it is.

    The page is complete or absent. Raises InputError, one line, for a folder that cannot be read.
    """
    kind = kind_of(folder)
    target = out if out is not None else folder / kind.page
    write_atomic(target, kind.render(kind.read(folder)))
    return target
