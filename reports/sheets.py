"""The tables of a run's summary for other programs: CSV, Markdown, and rows for a notebook's frames.

Rows are long: one number each, with its unit and definition, so tables of several runs can be put one below the other.
Values are those of summary.json, not rounded in CSV; units are the summary's (bytes, seconds or milliseconds).
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.files import write_atomic
from reports.load import load_run, section
from reports.tables import definition
from sim.attribution_summary import SPANS
from sim.exports import FOLDER, FORMATS, NAMES


@dataclass(frozen=True)
class Sheet:
    """One table: `rows` are in the order of `columns`, numbers as numbers, None where there is no value."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def sheets(summary: Mapping[str, Any]) -> list[Sheet]:
    """The tables `sim.exports.NAMES` of a summary (kvsim-summary/1)."""
    rest = ("label", "value", "unit", "definition")
    metrics = [
        [m.get(key) for key in ("key", "label", "value", "unit", "better", "definition")]
        for m in summary.get("metrics") or []
    ]
    made = (
        Sheet(NAMES[0], ("key", "label", "value", "unit", "better", "definition"), metrics),
        Sheet(NAMES[1], ("tier", "field", *rest), list(_fields(summary, "tiers"))),
        Sheet(NAMES[2], ("link", "field", *rest), list(_fields(summary, "links"))),
        Sheet(NAMES[3], ("of", "requests", "part", *rest), list(_parts(summary))),
    )
    return list(made)


def _fields(summary: Mapping[str, Any], group: str) -> Iterator[list[Any]]:
    for name, values in section(summary, group).items():
        for key, value in values.items():
            yield [name, key, *_described(definition(summary, group, key), key, value)]


def _parts(summary: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Mean parts of TTFT and E2E, of all finished requests and of the slowest 1 %; the last part is their sum."""
    for span in SPANS:
        for requests, found in section(section(summary, "attribution"), f"{span}_ms").items():
            for part, value in section(found, "parts").items():
                field = definition(summary, "attribution", "load" if part.startswith("load_") else part)
                yield [span, requests, part, *_described(field, part, value)]
            yield [span, requests, "all", "all", found["mean"], "ms", "The mean that the parts add up to."]


def _described(field: Mapping[str, Any], key: str, value: Any) -> list[Any]:
    return [field.get("label") or key, value, field.get("unit") or "", field.get("definition") or ""]


def as_csv(sheet: Sheet) -> str:
    """The table as CSV (RFC 4180 with plain line ends); a missing value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.columns)
    writer.writerows(sheet.rows)
    return text.getvalue()


def as_markdown(sheet: Sheet) -> str:
    """The table in Markdown, numbers to six digits."""
    rows = [[_cell(value) for value in row] for row in sheet.rows]
    rule = ["---:" if column == "value" else "---" for column in sheet.columns]
    return "".join(f"| {' | '.join(row)} |\n" for row in (sheet.columns, rule, *rows))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def write_sheets(run_dir: Path, form: str, out: Path | None = None) -> list[Path]:
    """Write `tables/<name>.<form>` of the run in `run_dir` below `out` (default: `run_dir`); returns the files.

    Each file is complete or absent. InputError, one line, for another format than csv or md, and for a run directory
    that cannot be read.
    """
    check_form(form)
    write = as_csv if form == "csv" else as_markdown
    folder = (run_dir if out is None else out) / FOLDER
    files = []
    for sheet in sheets(load_run(run_dir).summary):
        write_atomic(folder / f"{sheet.name}.{form}", write(sheet))
        files.append(folder / f"{sheet.name}.{form}")
    return files


def check_form(form: str) -> None:
    """Raise InputError unless tables can be written in the format `form`."""
    if form not in FORMATS:
        raise InputError("", where="--tables", found=form, allowed=FORMATS, near=FORMATS)
