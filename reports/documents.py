"""Reads the JSON documents behind reports: one line for what is missing, broken, half-written or of another version."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import read_text


def read_json(path: Path) -> Any:
    """What is in the file. Raises InputError, one line, where it cannot be read or is no JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON (line {error.lineno}: {error.msg})", where=path) from None
    except RecursionError:
        raise InputError("not valid JSON (nested too deeply)", where=path) from None


def read_document(path: Path, schema: str) -> Mapping[str, Any]:
    """The JSON object in the file, of this schema. Raises InputError, one line."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError("expected a JSON object", where=path, found=type(found).__name__)
    if found.get("schema") != schema:
        text = "written by another version of kvsim: make it again"
        raise InputError(text, where=path, path="schema", found=found.get("schema"), allowed=schema)
    return found


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """What is read in here has the shape that kvsim writes; anything else is InputError, one line."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        said = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
        raise InputError(f"not as kvsim writes it ({said}): make it again", where=path) from None
