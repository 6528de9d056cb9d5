"""A trace as one fixed sequence of block accesses, in flat arrays, with what is known of the past and the future."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hw_profiles.errors import InputError
from traces.request import Floats, Ints, Trace

ENGINE_BLOCK = 16
"""Tokens of an engine's block, vLLM's default (vllm/config/cache.py)."""


class Hits(NamedTuple):
    """What a cache saved: prompt `tokens` by prefix lookups, `blocks` accessed while they were resident, and how many
    of the tokens an `engine` could use (see `engine_tokens`)."""

    tokens: int
    blocks: int
    engine: int = 0


def engine_tokens(found: int, length: int) -> int:
    """Of `found` tokens of a prompt of `length`, those that an engine uses: full blocks of its own, and never the last
    token of a prompt, which it computes (vllm/v1/core/kv_cache_manager.py, get_computed_blocks)."""
    return min(found, length - 1) // ENGINE_BLOCK * ENGINE_BLOCK


@dataclass(frozen=True, eq=False)
class Accesses:
    """Every use of a block, request after request in order of arrival; within a request children before parents.

    For n accesses by m requests: `keys` int64[n], blocks as 0 .. distinct - 1; `tokens` int64[n], tokens of the block
    (the last of a prompt may be partial); `starts` int64[n], tokens of the prompt before it; `bounds` int64[m + 1]:
    request i makes the accesses bounds[i] .. bounds[i + 1] - 1, of which the last is the start of its prompt.
    `block_tokens` are the tokens of a full block. By request: `arrival_s` float64[m], s, and `turns` int64[m], turns
    in conversations, None where the trace names none.
    """

    keys: Ints
    tokens: Ints
    starts: Ints
    bounds: Ints
    distinct: int
    block_tokens: int
    arrival_s: Floats
    turns: Ints | None = None

    @property
    def input_tokens(self) -> int:
        """Prompt tokens of all requests."""
        return int(self.tokens.sum())

    def segments(self) -> list[tuple[int, int]]:
        """(first, past last) access of every request."""
        return list(pairwise(self.bounds.tolist()))

    def prefix_tokens(self) -> list[int]:
        """int[n]: prompt tokens from its start to the end of the block of an access: the worth of a prefix hit."""
        ends: list[int] = (self.starts + self.tokens).tolist()
        return ends


def accesses_of(trace: Trace, block_tokens: int | None = None) -> Accesses:
    """The accesses of `trace`, in its own blocks or in larger ones of `block_tokens`.

    Larger blocks must be a multiple of the trace's: ids are chained, so the id of the last small block names the whole
    large one. Raises InputError for another size, and for a trace without prefix information.
    """
    own = trace.block_tokens
    if own <= 0 or not len(trace.hash_ids):
        raise InputError("has no hash ids: nothing is known of shared prefixes", where=trace.source)
    size = own if block_tokens is None else block_tokens
    if size < own or size % own:
        raise InputError(
            "hits are not known for blocks of this size",
            path="block_tokens",
            found=size,
            allowed=f"a multiple of the trace's {own}",
        )
    per = size // own
    fine = np.diff(trace.hash_offsets)
    counts = -(-fine // per)
    bounds = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    owner = np.repeat(np.arange(len(trace)), counts)
    # Place of the block in its prompt: the first access of a request is its deepest block.
    place = bounds[1:][owner] - 1 - np.arange(bounds[-1])
    last_fine = np.minimum((place + 1) * per, fine[owner]) - 1
    _, keys = np.unique(trace.hash_ids[trace.hash_offsets[:-1][owner] + last_fine], return_inverse=True)
    keys = keys.reshape(-1).astype(np.int64)
    starts = place * size
    tokens = np.minimum(trace.input_tokens[owner] - starts, size)
    return Accesses(keys, tokens, starts, bounds, int(keys.max()) + 1, size, trace.arrival_s, trace.turns)


def previous_use(keys: Ints) -> Ints:
    """int64[n]: the access before that used the same block, -1 at its first use."""
    found = np.full(len(keys), -1)
    earlier, later = _neighbours(keys)
    found[later] = earlier
    return found


def next_use(keys: Ints) -> Ints:
    """int64[n]: the next access that uses the same block, n after its last use."""
    found = np.full(len(keys), len(keys))
    earlier, later = _neighbours(keys)
    found[earlier] = later
    return found


def _neighbours(keys: Ints) -> tuple[Ints, Ints]:
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    return order[:-1][same], order[1:][same]
