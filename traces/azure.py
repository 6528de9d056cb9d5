"""Reader of the Azure LLM inference traces of 2023 and 2024: CSV, plain or gzip, no prefix information.

`TIMESTAMP` (UTC, `2023-11-16 18:17:03.9799600`, with up to 9 decimals; the 2024 files add `+00:00`),
`ContextTokens`, `GeneratedTokens`.
SOURCE: Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and AzureLLMInferenceDataset2024.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from traces.request import Trace
from traces.table import Clock, Layout, read_table

KEYS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d):(\d\d)(?:\.(\d{1,9}))?(?:\+00:00|Z)?", re.ASCII)


def read_azure(path: str | Path, *, strict: bool = False, name: str | None = None) -> Trace:
    """Reads `path` into a Trace; the earliest request arrives at 0 s.

    Lines out of order are sorted with a warning, which `strict` refuses. Raises InputError for all else.
    """
    clock = Clock("TIMESTAMP", _nanoseconds(), "a time such as 2023-11-16 18:17:03.9799600", 1e9, zero=True)
    return read_table(Path(path), Layout(clock, "ContextTokens", "GeneratedTokens"), strict=strict, name=name)


def _nanoseconds() -> Callable[[str], int]:
    """A parser of time stamps to nanoseconds since 1970, exact; it remembers the minutes it has seen."""

    @lru_cache(maxsize=4096)
    def minute_s(day: str, minute: str) -> int:
        return int(datetime.strptime(f"{day} {minute}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp())

    def parse(text: str) -> int:
        found = _STAMP.fullmatch(text)
        if found is None:
            raise ValueError(text)
        day, minute, second, decimals = found.groups()
        if second > "59":
            raise ValueError(text)
        return (minute_s(day, minute) + int(second)) * 1_000_000_000 + int((decimals or "").ljust(9, "0"))

    return parse
