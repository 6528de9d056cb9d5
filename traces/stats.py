"""Figures of a trace: sizes, rates and how much of its prefixes an infinite cache could serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from traces.blocks import first_table, numbered
from traces.request import Ints, Trace

Bools = npt.NDArray[np.bool_]
SLICE = 1 << 22  # hash ids handled at once


class StatLabel(NamedTuple):
    """How to print one figure: `label` for people, `unit` ("" for a ratio), `definition` in one line."""

    label: str
    unit: str
    definition: str


_LABELS = {
    "requests": StatLabel("requests", "", "lines of the trace"),
    "duration_s": StatLabel("duration", "s", "last arrival - first arrival"),
    "rate_per_s": StatLabel("arrival rate", "1/s", "(requests - 1) / duration; 0 if all arrive at once"),
    "distinct_arrivals": StatLabel("distinct arrival times", "", "few where timestamps are coarse"),
    "largest_burst": StatLabel("largest burst", "requests", "most requests with one arrival time"),
    "after_another": StatLabel("sent after another", "requests", "closed loop: sent when another request has ended"),
    "max_parallel": StatLabel("under way at a time", "requests", "closed loop: at most; others wait with their sender"),
    "sessions": StatLabel("conversations", "", "with their sub-agents"),
    "turns_mean": StatLabel("turns, mean", "requests", "per conversation, with its sub-agents"),
    "turns_p50": StatLabel("turns, p50", "requests", "per conversation, with its sub-agents"),
    "turns_p99": StatLabel("turns, p99", "requests", "per conversation, with its sub-agents"),
    "turns_max": StatLabel("turns, max", "requests", "per conversation, with its sub-agents"),
    "think_known": StatLabel("think times known", "requests", "those whose next turn waits for a known time"),
    "think_mean": StatLabel("think time, mean", "s", "from the end of a turn to the sending of the next"),
    "think_p50": StatLabel("think time, p50", "s", "from the end of a turn to the sending of the next"),
    "think_p99": StatLabel("think time, p99", "s", "from the end of a turn to the sending of the next"),
    "input_tokens": StatLabel("input", "tokens", "prompt tokens of all requests"),
    "input_mean": StatLabel("input, mean", "tokens", "per request"),
    "input_p50": StatLabel("input, p50", "tokens", "per request"),
    "input_p99": StatLabel("input, p99", "tokens", "per request"),
    "input_max": StatLabel("input, max", "tokens", "per request"),
    "output_tokens": StatLabel("output", "tokens", "generated tokens of all requests"),
    "output_mean": StatLabel("output, mean", "tokens", "per request"),
    "output_p50": StatLabel("output, p50", "tokens", "per request"),
    "output_p99": StatLabel("output, p99", "tokens", "per request"),
    "output_max": StatLabel("output, max", "tokens", "per request"),
    "block_tokens": StatLabel("tokens per prefix block", "tokens", "granularity of the trace's hash ids"),
    "blocks": StatLabel("prefix blocks", "", "hash ids of all requests"),
    "distinct_blocks": StatLabel("distinct prefix blocks", "", "what an infinite cache would hold"),
    "distinct_tokens": StatLabel("distinct prefix tokens", "tokens", "tokens behind the distinct blocks"),
    "ideal_hit_tokens": StatLabel("ideal hits", "tokens", "leading tokens seen in earlier requests"),
    "ideal_hit_ratio": StatLabel("ideal hit ratio", "", "ideal hits / input: prefix cache of infinite size"),
    "requests_with_hit": StatLabel("requests with an ideal hit", "", "at least one block seen before"),
    "reused_blocks": StatLabel("blocks used again", "", "distinct blocks in more than one request"),
    "uses_per_block": StatLabel("uses per block", "", "blocks / distinct blocks"),
    "shared_prefix_mean": StatLabel("shared prefix, mean", "tokens", "leading, in blocks of several conversations"),
    "shared_prefix_ratio": StatLabel(
        "shared prefix ratio", "", "shared prefixes / input: not of one conversation alone"
    ),
}


def stat_labels() -> Mapping[str, StatLabel]:
    """Label, unit and definition of every key that `stats` may return, in printing order."""
    return MappingProxyType(_LABELS)


def ideal_hits(trace: Trace) -> Ints:
    """int64[n]: leading input tokens of each request whose blocks all occur in earlier requests.

    The hits of an infinite prefix cache: counting stops at the first block not seen before; a partial last
    block seen before counts with its tokens. All 0 where the trace has no prefix information.
    """
    codes, size = numbered(trace.hash_ids)
    first = np.full(size, len(trace))  # the first request with each id, as far as seen

    def seen(part: Ints, owner: Ints) -> Bools:
        np.minimum.at(first, part, owner)
        earlier: Bools = first[part] < owner
        return earlier

    return _leading(trace, codes, seen)


def _slices(offsets: Ints) -> Iterator[tuple[int, int]]:
    """(first, past last) request of slices with about SLICE ids each: memory stays bounded on long traces."""
    lo = 0
    while lo < len(offsets) - 1:
        hi = int(np.searchsorted(offsets, offsets[lo] + SLICE, side="right")) - 1
        hi = max(hi, lo + 1)
        yield lo, hi
        lo = hi


def stats(trace: Trace) -> dict[str, int | float]:
    """The figures of `stat_labels`, in seconds and tokens, as far as the trace tells.

    When requests of a closed loop arrive is known only after a run, so nothing is said of it.
    """
    out: dict[str, int | float] = {"requests": len(trace)}
    out |= _closed_stats(trace) if trace.closed_loop else _arrival_stats(trace)
    if trace.session_ids is not None:
        out |= _turn_stats(trace, trace.session_ids)
    for key, column in (("input", trace.input_tokens), ("output", trace.output_tokens)):
        p50, p99 = np.percentile(column, (50, 99))
        out[f"{key}_tokens"] = int(column.sum())
        out |= {f"{key}_mean": float(column.mean()), f"{key}_p50": float(p50), f"{key}_p99": float(p99)}
        out[f"{key}_max"] = int(column.max())
    if trace.block_tokens:
        out |= _prefix_stats(trace)
        if trace.session_ids is not None:
            out |= _shared_stats(trace, trace.session_ids)
    return out


def _arrival_stats(trace: Trace) -> dict[str, int | float]:
    duration = float(trace.arrival_s[-1] - trace.arrival_s[0])
    _, bursts = np.unique(trace.arrival_s, return_counts=True)
    return {
        "duration_s": duration,
        "rate_per_s": (len(trace) - 1) / duration if duration > 0 else 0.0,
        "distinct_arrivals": len(bursts),
        "largest_burst": int(bursts.max()),
    }


def _closed_stats(trace: Trace) -> dict[str, int | float]:
    after = np.zeros(0) if trace.after is None else trace.after
    found: dict[str, int | float] = {"after_another": int((after >= 0).sum())}
    return found if trace.max_parallel is None else found | {"max_parallel": trace.max_parallel}


def _turn_stats(trace: Trace, sessions: Ints) -> dict[str, int | float]:
    _, turns = np.unique(sessions[sessions >= 0], return_counts=True)
    if not len(turns):
        return {}
    p50, p99 = np.percentile(turns, (50, 99))
    out: dict[str, int | float] = {"sessions": len(turns), "turns_mean": float(turns.mean())}
    out |= {"turns_p50": float(p50), "turns_p99": float(p99), "turns_max": int(turns.max())}
    think = trace.think_s[np.isfinite(trace.think_s)]
    out["think_known"] = len(think)
    if len(think):
        p50, p99 = np.percentile(think, (50, 99))
        out |= {"think_mean": float(think.mean()), "think_p50": float(p50), "think_p99": float(p99)}
    return out


def _shared_stats(trace: Trace, sessions: Ints) -> dict[str, int | float]:
    """The leading tokens of prompts whose blocks occur in more than one conversation."""
    codes, size = numbered(trace.hash_ids)
    # a request of no conversation counts as one
    own = np.where(sessions < 0, int(sessions.max()) + 1 + np.arange(len(trace)), sessions)
    least, most = np.full(size, np.iinfo(np.int64).max), np.full(size, -1)
    for lo, hi in _slices(trace.hash_offsets):
        part = codes[trace.hash_offsets[lo] : trace.hash_offsets[hi]]
        owner = np.repeat(own[lo:hi], np.diff(trace.hash_offsets[lo : hi + 1]))
        np.minimum.at(least, part, owner)
        np.maximum.at(most, part, owner)
    tokens = _leading(trace, codes, lambda part, _owner: least[part] < most[part])
    return {
        "shared_prefix_mean": float(tokens.mean()),
        "shared_prefix_ratio": float(tokens.sum() / trace.input_tokens.sum()),
    }


def _leading(trace: Trace, codes: Ints, counts: Callable[[Ints, Ints], Bools]) -> Ints:
    """int64[n]: input tokens of each request before its first block for which `counts` (codes, requests) is false."""
    found = np.zeros(len(trace), np.int64)
    for lo, hi in _slices(trace.hash_offsets):
        start, stop = trace.hash_offsets[lo], trace.hash_offsets[hi]
        part, numbers = codes[start:stop], np.diff(trace.hash_offsets[lo : hi + 1])
        owner = np.repeat(np.arange(lo, hi), numbers)
        starts = trace.hash_offsets[lo:hi] - start
        place = np.arange(len(part)) - np.repeat(starts, numbers)  # 0, 1, ... within its request
        run = np.where(counts(part, owner), np.repeat(numbers, numbers), place)
        used = np.flatnonzero(numbers)
        if len(used):
            found[lo + used] = np.minimum.reduceat(run, starts[used]) * trace.block_tokens
    return np.minimum(found, trace.input_tokens)


def _prefix_stats(trace: Trace) -> dict[str, int | float]:
    hits = ideal_hits(trace)
    codes, size = numbered(trace.hash_ids)
    uses = np.bincount(codes, minlength=size)
    first = first_table(codes, size, np.arange(len(codes)))[uses > 0]
    uses = uses[uses > 0]
    # a block counts as at its first use; the last of a request may be partial
    owner = np.searchsorted(trace.hash_offsets, first, side="right") - 1
    last = first == trace.hash_offsets[1:][owner] - 1
    short_by = trace.block_tokens * np.diff(trace.hash_offsets) - trace.input_tokens
    distinct_tokens = len(first) * trace.block_tokens - int(short_by[owner][last].sum())
    return {
        "block_tokens": trace.block_tokens,
        "blocks": len(trace.hash_ids),
        "distinct_blocks": len(uses),
        "distinct_tokens": distinct_tokens,
        "ideal_hit_tokens": int(hits.sum()),
        "ideal_hit_ratio": float(hits.sum() / trace.input_tokens.sum()),
        "requests_with_hit": int((hits > 0).sum()),
        "reused_blocks": int((uses > 1).sum()),
        "uses_per_block": len(trace.hash_ids) / len(uses),
    }
