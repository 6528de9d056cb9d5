"""What a reader does last: put requests in order of arrival, and check that hash ids name prefixes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hw_profiles.errors import InputError
from traces.blocks import first_places
from traces.request import Ints, Trace

UNCHAINED = "hash_ids: an id follows another prefix, or covers another token count, than at its first use"


def in_order(trace: Trace, lines: Ints, strict: bool, *, stamp: str = "timestamp", any_order: bool = False) -> Trace:
    """The trace sorted by arrival (stable), with warnings on disorder and on ids that are not chained.

    `lines` int64[n]: line of each request. `strict` refuses what would be a warning, with an InputError.
    `stamp`: the column to name. `any_order`: the format does not promise order, so disorder is no news.
    """
    warnings = list(trace.warnings)
    late = np.flatnonzero(np.diff(trace.arrival_s) < 0) + 1
    if len(late) and not any_order:
        where = f"{trace.source}:{lines[late[0]]}"
        if strict:
            raise InputError(f"{stamp}: earlier than on the line before", where=where)
        warnings.append(f"{where}: {len(late)} line(s) earlier than the line before; sorted by {stamp}")
    loose = unchained(trace)
    if len(loose):
        where = f"{trace.source}:{lines[loose[0]]}"
        if strict:
            raise InputError(UNCHAINED, where=where)
        warnings.append(f"{where}: {UNCHAINED} ({len(loose)} request(s)); equal ids still count as equal blocks")
    if len(late):
        trace = trace.select(np.argsort(trace.arrival_s, kind="stable"))
    return replace(trace, warnings=tuple(warnings))


def unchained(trace: Trace) -> Ints:
    """Indices of requests that use an id after another prefix, or for other tokens, than at its first use."""
    offsets, ids = trace.hash_offsets, trace.hash_ids
    if len(ids) == 0:
        return np.zeros(0, np.int64)
    counts = np.diff(offsets)
    used = counts > 0
    before = np.concatenate(([-1], ids[:-1]))
    before[offsets[:-1][used]] = -1  # the first block of a request follows nothing
    tokens = np.full(len(ids), trace.block_tokens)
    tokens[offsets[1:][used] - 1] = trace.input_tokens[used] - (counts[used] - 1) * trace.block_tokens
    first = first_places(ids)
    wrong = (before != before[first]) | (tokens != tokens[first])
    return np.unique(np.repeat(np.arange(len(trace)), counts)[wrong]).astype(np.int64)


def with_tails(trace: Trace) -> Trace:
    """The trace with one more id for every prompt that ends in a partial block, shared with nobody.

    For formats that number full blocks only: what is behind them is unknown, and a cache of full blocks cannot
    serve it. `hash_offsets` counts floor(input / block_tokens) ids before, and rounds up after.
    """
    ids, counts = trace.hash_ids, np.diff(trace.hash_offsets)
    partial = np.flatnonzero(trace.input_tokens % trace.block_tokens)
    first_new = int(ids.max()) + 1 if len(ids) else 0
    new = first_new + np.arange(len(partial))
    offsets = trace.hash_offsets.copy()
    counts[partial] += 1
    offsets[1:] = np.cumsum(counts)
    return replace(trace, hash_ids=np.insert(ids, trace.hash_offsets[1:][partial], new), hash_offsets=offsets)
