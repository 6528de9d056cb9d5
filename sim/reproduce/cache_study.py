"""A recorded trace over caches without timing: what papers say of hit ratios by size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np

from hw_profiles.errors import InputError
from sim.cache.accesses import accesses_of
from sim.cache.stack import lru_hits
from traces.catalog import load_trace, locate
from traces.request import Trace


@dataclass(frozen=True)
class Hits:
    """Share of prompt tokens that were found."""

    ratio: float


@dataclass(frozen=True)
class Absent:
    """Why a study cannot be made on this machine: it needs a trace that kvsim does not ship."""

    why: str


@dataclass(frozen=True)
class CacheStudy:
    """LRU over the requests of a trace, in their order.

    tokens   that a cache holds; None: everything
    caches   of them, to which requests go in turn
    window   prompts keep no more than their last so many tokens, in whole blocks; None: all of them
    """

    trace: str
    tokens: int | None = None
    caches: int = 1
    window: int | None = None

    @property
    def key(self) -> str:
        """Text that is equal for equal studies."""
        return json.dumps({"study": asdict(self)}, sort_keys=True)

    def measure(self) -> Hits | Absent:
        """Replay the trace."""
        try:
            locate(self.trace)
        except InputError as error:
            return Absent(str(error))
        trace = load_trace(self.trace)
        if self.window is not None:
            trace = truncated(trace, self.window)
        found = 0
        for first in range(self.caches):
            accesses = accesses_of(_every(trace, first, self.caches), None)
            room = accesses.distinct if self.tokens is None else self.tokens // trace.block_tokens
            found += lru_hits(accesses, [max(1, min(room, accesses.distinct))])[0].tokens
        return Hits(found / int(trace.input_tokens.sum()))


def truncated(trace: Trace, window: int) -> Trace:
    """The trace with prompts cut from their start, in whole blocks, to the last `window` tokens at most.

    What follows a cut is another prefix: its blocks are those of no prompt that was cut elsewhere, or not at all.
    """
    block = trace.block_tokens
    cut = np.maximum(0, -(-(trace.input_tokens - window) // block))
    offsets = trace.hash_offsets
    ids: list[np.ndarray] = []
    numbers: dict[tuple[int, int], int] = {}
    for i, dropped in enumerate(cut.tolist()):
        kept = trace.hash_ids[offsets[i] + dropped : offsets[i + 1]]
        named = [numbers.setdefault((dropped, key), len(numbers)) for key in kept.tolist()]
        ids.append(np.array(named, dtype=np.int64))
    return replace(
        trace,
        input_tokens=trace.input_tokens - cut * block,
        hash_ids=np.concatenate(ids),
        hash_offsets=np.concatenate([[0], np.cumsum([len(own) for own in ids])]),
    )


def _every(trace: Trace, first: int, step: int) -> Trace:
    """Requests `first`, `first + step`, ... of a trace."""
    if step == 1:
        return trace
    rows = np.arange(first, len(trace), step)
    offsets = trace.hash_offsets
    parts = [trace.hash_ids[offsets[i] : offsets[i + 1]] for i in rows]
    return Trace(
        trace.name,
        trace.block_tokens,
        trace.arrival_s[rows],
        trace.input_tokens[rows],
        trace.output_tokens[rows],
        np.concatenate(parts),
        np.concatenate([[0], np.cumsum([len(part) for part in parts])]),
        trace.content_sha256,
        trace.source,
    )
