"""What every trace keeps to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InputError

if TYPE_CHECKING:
    from traces.request import Trace

OPTIONAL = ("session_ids", "turns", "after", "delay_s", "priorities", "barriers", "models")
"""Columns that a trace may lack; `after` and `delay_s` come together."""


def check(trace: Trace) -> None:
    """Raises InputError naming the first request that breaks a rule of `Trace`."""
    n = len(trace)
    if n == 0:
        raise InputError("the trace holds no request", where=trace.source)
    if not (len(trace.input_tokens) == len(trace.output_tokens) == n and len(trace.hash_offsets) == n + 1):
        raise InputError("columns differ in length", where=trace.source)
    for column in OPTIONAL:
        if getattr(trace, column) is not None and len(getattr(trace, column)) != n:
            raise InputError(f"{column} differ in length from the other columns", where=trace.source)
    if (trace.after is None) != (trace.delay_s is None) or (trace.closed_loop and trace.after is None):
        raise InputError("after and delay_s come together, and a closed loop needs them", where=trace.source)
    counts = np.diff(trace.hash_offsets)
    per_block = trace.block_tokens
    wanted = -(-trace.input_tokens // per_block) if per_block > 0 else np.zeros(n, np.int64)
    spans = trace.hash_offsets[0] == 0 and trace.hash_offsets[-1] == len(trace.hash_ids)
    if per_block < 0 or not spans:
        text = "hash_offsets do not span hash_ids, or block_tokens is negative"
        raise InputError(text, where=trace.source)
    rules = (
        (np.isfinite(trace.arrival_s) & (trace.arrival_s >= 0), "arrival_s must be finite and >= 0"),
        (np.diff(trace.arrival_s, prepend=-np.inf) >= 0, "arrivals must ascend"),
        (trace.input_tokens >= 1, "input_tokens must be >= 1"),
        (trace.output_tokens >= 1, "output_tokens must be >= 1"),
        (counts == wanted, f"hash ids must number input_tokens / {per_block}, rounded up"),
        *_link_rules(trace),
    )
    for ok, rule in rules:
        if not ok.all():
            raise InputError(f"request {int(np.argmin(ok))}: {rule}", where=trace.source)


def _link_rules(trace: Trace) -> Iterator[tuple[npt.NDArray[np.bool_], str]]:
    if trace.after is None or trace.delay_s is None:
        return
    yield (trace.after >= -1) & (trace.after < np.arange(len(trace))), "after must be an earlier request, or -1"
    linked = trace.after >= 0
    known = np.isfinite(trace.delay_s) & (trace.delay_s >= 0)
    yield np.where(linked, known | np.isnan(trace.delay_s), np.isnan(trace.delay_s)), "delay_s must be >= 0 or NaN"
    if trace.closed_loop:
        if trace.barriers is not None:
            rising = ~linked | (trace.barriers > trace.barriers[trace.after])
            yield (trace.barriers >= 0) & rising, "a request must be of a later round than the one it waits for"
        yield known | ~linked, "a closed loop needs the delay_s of every request with after"
