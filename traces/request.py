"""The request record: one trace as columns (numpy) and one request as a small object.

Columns are what the readers fill and what statistics use; `Trace.request(i)` gives the row the engine wants.
Units are SI: seconds and tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Request:
    """One request: arrival in seconds, lengths in tokens, the chained ids of its prefix blocks."""

    index: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    hash_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival, as read-only columns.

    Shapes, for n requests: `arrival_s` float64[n] (s, ascending), `input_tokens` and `output_tokens` int64[n]
    (>= 1), `hash_ids` int64[total] with `hash_offsets` int64[n + 1]: request i owns
    `hash_ids[hash_offsets[i]:hash_offsets[i + 1]]`, ceil(input / block_tokens) ids of which the last may name
    a partial block. Ids are chained: equal ids mean equal blocks after equal prefixes.
    `block_tokens` is the number of tokens behind one id; 0 means that the trace says nothing about prefixes.
    `content_sha256` covers the uncompressed source file, or the generator's parameters; `source` names it.
    `session_ids` int64[n], where the source tells: equal for the requests of one conversation, with its
    sub-agents; numbered from 0 as in the source.
    """

    name: str
    block_tokens: int
    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    hash_ids: Ints
    hash_offsets: Ints
    content_sha256: str
    source: str
    warnings: tuple[str, ...] = ()
    session_ids: Ints | None = None

    def __post_init__(self) -> None:
        for column in ("arrival_s", "input_tokens", "output_tokens", "hash_ids", "hash_offsets", "session_ids"):
            if getattr(self, column) is None:
                continue
            dtype = np.float64 if column == "arrival_s" else np.int64
            view = np.ascontiguousarray(getattr(self, column), dtype=dtype).view()
            view.flags.writeable = False  # variants of a scenario share it: nobody may change it
            object.__setattr__(self, column, view)

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __iter__(self) -> Iterator[Request]:
        return (self.request(i) for i in range(len(self)))

    def request(self, index: int) -> Request:
        """Row `index` (0-based, order of arrival) with plain Python numbers."""
        if not 0 <= index < len(self):
            raise IndexError(f"request {index} of a trace of {len(self)}")
        lo, hi = int(self.hash_offsets[index]), int(self.hash_offsets[index + 1])
        return Request(
            index,
            float(self.arrival_s[index]),
            int(self.input_tokens[index]),
            int(self.output_tokens[index]),
            self.hash_ids[lo:hi].tolist(),
        )

    def select(self, rows: npt.NDArray[np.intp], arrival_s: Floats | None = None) -> Trace:
        """The requests `rows` (indices, in this order), with new arrival times (s) if given."""
        counts = np.diff(self.hash_offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        # place of every kept id in the old array: start of its request there + its place in the request
        places = np.repeat(self.hash_offsets[:-1][rows] - offsets[:-1], counts)
        places += np.arange(len(places))
        return replace(
            self,
            arrival_s=self.arrival_s[rows] if arrival_s is None else arrival_s,
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            hash_ids=self.hash_ids[places],
            hash_offsets=offsets,
            session_ids=None if self.session_ids is None else self.session_ids[rows],
        )

    def validate(self) -> Trace:
        """Returns the trace itself; raises InputError naming the first request that breaks a rule above."""
        n = len(self)
        if n == 0:
            raise InputError("the trace holds no request", where=self.source)
        if not (len(self.input_tokens) == len(self.output_tokens) == n and len(self.hash_offsets) == n + 1):
            raise InputError("columns differ in length", where=self.source)
        if self.session_ids is not None and len(self.session_ids) != n:
            raise InputError("session_ids differ in length from the other columns", where=self.source)
        counts = np.diff(self.hash_offsets)
        per_block = self.block_tokens
        wanted = -(-self.input_tokens // per_block) if per_block > 0 else np.zeros(n, np.int64)
        spans = self.hash_offsets[0] == 0 and self.hash_offsets[-1] == len(self.hash_ids)
        if per_block < 0 or not spans:
            text = "hash_offsets do not span hash_ids, or block_tokens is negative"
            raise InputError(text, where=self.source)
        rules = (
            (np.isfinite(self.arrival_s) & (self.arrival_s >= 0), "arrival_s must be finite and >= 0"),
            (np.diff(self.arrival_s, prepend=-np.inf) >= 0, "arrivals must ascend"),
            (self.input_tokens >= 1, "input_tokens must be >= 1"),
            (self.output_tokens >= 1, "output_tokens must be >= 1"),
            (counts == wanted, f"hash ids must number input_tokens / {per_block}, rounded up"),
        )
        for ok, rule in rules:
            if not ok.all():
                raise InputError(f"request {int(np.argmin(ok))}: {rule}", where=self.source)
        return self
