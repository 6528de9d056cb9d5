"""The rows of a study as JSON and CSV, and the whole of it as a document."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hw_profiles.files import write_atomic
from sim.cache.study import Row, Study

SCHEMA = "kvsim-cache/1"
FILE = "study.json"
"""The study with its bounds: what the page is made from."""


def row_mappings(study: Study) -> list[dict[str, Any]]:
    """What was asked for, policy by policy; `capacity_tokens` is None where it was unbounded."""
    return [asdict(row) for row in study.rows]


def save_study(study: Study, folder: Path) -> None:
    """Write `folder/cache.json` and `folder/cache.csv`, with the same rows, and `folder/study.json`, the whole study.

    Raises InputError.
    """
    rows = row_mappings(study)
    write_atomic(folder / "cache.json", json.dumps(rows, indent=2, allow_nan=False) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "cache.csv", text.getvalue())
    document = {"schema": SCHEMA, **asdict(study)}
    write_atomic(folder / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
