"""Prompt tokens that were computed although an earlier prompt had had them: what unlimited caches would have saved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from traces.request import Trace

Ints = npt.NDArray[np.int64]


def computed_again(trace: Trace, columns: Mapping[str, np.ndarray], block_tokens: int) -> Ints | None:
    """Tokens by request that it computed again: int64[requests], as the rows of `columns`; 0 for one never admitted.

    The leading blocks of its prompt that a prompt admitted before it had, in whole blocks of the engine
    (`block_tokens`) and but for its last token, less what it reused. So first-time tokens = computed - these.
    None for a trace that says nothing about prefixes. `columns`: request_id, admit_s, input_tokens, hit_<tier>_tokens.
    """
    if not trace.block_tokens:
        return None
    ids, admitted = columns["request_id"], ~np.isnan(columns["admit_s"])
    reused = sum((columns[name] for name in columns if name.startswith("hit_")), np.zeros(len(ids), dtype=np.int64))
    rows = np.flatnonzero(admitted)
    rows = rows[np.argsort(columns["admit_s"][rows], kind="stable")]
    shared = np.zeros(len(ids), dtype=np.int64)
    shared[rows] = _leading_seen(trace, ids[rows]) * trace.block_tokens
    most = np.maximum(columns["input_tokens"] - 1, 0)
    again: Ints = np.maximum(np.minimum(shared, most) // block_tokens * block_tokens - reused, 0)
    return again


def _leading_seen(trace: Trace, order: Ints) -> Ints:
    """Leading blocks of each prompt that a prompt before it in `order` has: int64[len(order)]."""
    found = np.zeros(len(order), dtype=np.int64)
    starts = trace.hash_offsets[order]
    lengths = trace.hash_offsets[order + 1] - starts
    asking = np.flatnonzero(lengths)
    if not len(asking):
        return found
    starts, lengths = starts[asking], lengths[asking]
    begins = np.cumsum(lengths) - lengths
    place = np.arange(lengths.sum()) - np.repeat(begins, lengths)
    keys = trace.hash_ids[np.repeat(starts, lengths) + place]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    new = first[which] >= np.repeat(begins, lengths)
    found[asking] = np.minimum.reduceat(np.where(new, place, np.repeat(lengths, lengths)), begins)
    return found
