"""One number of the summary, as it is declared."""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """One number of a group: its key in the summary, how it is called, its unit and what it means."""

    key: str
    label: str
    unit: str
    definition: str
