"""What became of each request, one row when it has ended: then the sequence itself may go."""

from __future__ import annotations

import numpy as np

from sim.columns import Columns
from sim.engine.sequence import Sequence

COLUMNS: dict[str, str] = {
    "index": "int64",
    "replica": "int16",
    "session": "int64",
    "turn": "int32",
    "status": "str",
    "arrival_s": "float64",
    "admit_s": "float64",
    "load_done_s": "float64",
    "chunk_s": "float64",
    "first_token_s": "float64",
    "finish_s": "float64",
    "fetched_s": "float64",
    "entered_s": "float64",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "generated": "int64",
    "prefilled": "int64",
    "recomputed": "int64",
    "preemptions": "int32",
    "resumed": "int32",
    "load_level": "int16",
}
"""Attributes of a sequence; `reused_<level>`, tokens that it found in each tier, come after them."""


class Served:
    """Rows in order of ending, until they are read: then in order of sending, which is that of arrival."""

    def __init__(self, tiers: int) -> None:
        self.sent = 0
        """Requests sent so far."""
        self.recent: list[Sequence] | None = None
        """Those sent since somebody took this list, if anybody does: otherwise sequences are let go when they end."""
        self._sorted = 0
        """Rows that are in order of sending already."""
        self._columns = Columns({"place": "int64", **COLUMNS, **{f"reused_{i}": "int64" for i in range(tiers)}})

    def begin(self, seq: Sequence) -> None:
        """A request was sent."""
        seq.place = self.sent
        self.sent += 1
        if self.recent is not None:
            self.recent.append(seq)

    def add(self, seq: Sequence) -> None:
        """It has ended, finished or rejected."""
        s = seq
        row = (
            s.place,
            s.index,
            s.replica,
            s.session,
            s.turn,
            s.status,
            s.arrival_s,
            s.admit_s,
            s.load_done_s,
            s.chunk_s,
            s.first_token_s,
            s.finish_s,
            s.fetched_s,
            s.entered_s,
            s.input_tokens,
            s.output_tokens,
            s.generated,
            s.prefilled,
            s.recomputed,
            s.preemptions,
            s.resumed,
            s.load_level,
            *s.hit_tokens,
        )
        self._columns.append(row)

    def column(self, name: str) -> np.ndarray:
        """An attribute of the requests that have ended, in order of sending."""
        if self._sorted != len(self):
            self._columns.sort("place")
            self._sorted = len(self)
        return self._columns.numbers(name)

    @property
    def statuses(self) -> tuple[np.ndarray, list[str]]:
        """The status of each in the same order, as a place in a list of those that there are."""
        return self.column("status"), self._columns.texts("status")

    def __len__(self) -> int:
        return len(self._columns)
