"""Prompt tokens that were computed although an earlier prompt had had them: what unlimited caches would have saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from traces.request import Trace

Ints = npt.NDArray[np.int64]

ROWS = 1 << 15
"""Prompts that are looked at together: memory goes in proportion."""
DENSE = 4
"""Where keys are numbers without gaps, or nearly, a list by key says what there is of each; else they are sorted first.
The list may be so many times longer than there are keys."""


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
    first = _first_rows(trace, order)
    found = np.zeros(len(order), dtype=np.int64)
    for low in range(0, len(order), ROWS):
        rows = order[low : low + ROWS]
        keys, lengths = _keys(trace, rows)
        asking = np.flatnonzero(lengths)
        if not len(asking):
            continue
        lengths = lengths[asking]
        begins = np.cumsum(lengths) - lengths
        place = np.arange(len(keys)) - np.repeat(begins, lengths)
        new = first(keys) == np.repeat(low + asking, lengths)
        found[low + asking] = np.minimum.reduceat(np.where(new, place, np.repeat(lengths, lengths)), begins)
    return found


def _first_rows(trace: Trace, order: Ints) -> Callable[[Ints], npt.NDArray[np.int32]]:
    """Tells of keys which prompt of `order` had them first, as its place there. Keys come from these prompts."""
    ids = trace.hash_ids
    lowest = int(ids.min(initial=0))
    names: Ints | None = None
    if int(ids.max(initial=0)) - lowest > DENSE * len(ids):
        names = np.unique(ids)
    first = np.zeros(int(ids.max(initial=0)) - lowest + 1 if names is None else len(names), dtype=np.int32)

    def place(keys: Ints) -> Ints:
        return keys - lowest if names is None else np.searchsorted(names, keys)

    for low in range((len(order) - 1) // ROWS * ROWS, -1, -ROWS):  # from the last one on: what is written last stays
        keys, lengths = _keys(trace, order[low : low + ROWS])
        first[place(keys)[::-1]] = np.repeat(np.arange(low, low + len(lengths)), lengths)[::-1]
    return lambda keys: first[place(keys)]


def _keys(trace: Trace, rows: Ints) -> tuple[Ints, Ints]:
    """The keys of these prompts, one prompt after the other, and how many each has."""
    starts = trace.hash_offsets[rows]
    lengths = trace.hash_offsets[rows + 1] - starts
    place = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return trace.hash_ids[place], lengths
