"""Figures of a trace: sizes, rates and how much of its prefixes an infinite cache could serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from traces.blocks import first_table, numbered
from traces.request import Ints, Trace

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
}


def stat_labels() -> Mapping[str, StatLabel]:
    """Label, unit and definition of every key that `stats` may return, in printing order."""
    return MappingProxyType(_LABELS)


def ideal_hits(trace: Trace) -> Ints:
    """int64[n]: leading input tokens of each request whose blocks all occur in earlier requests.

    The hits of an infinite prefix cache: counting stops at the first block not seen before; a partial last
    block seen before counts with its tokens. All 0 where the trace has no prefix information.
    """
    hits = np.zeros(len(trace), np.int64)
    codes, size = numbered(trace.hash_ids)
    first = np.full(size, len(trace))  # the first request with each id, as far as seen
    for lo, hi in _slices(trace.hash_offsets):
        start, stop = trace.hash_offsets[lo], trace.hash_offsets[hi]
        part, counts = codes[start:stop], np.diff(trace.hash_offsets[lo : hi + 1])
        owner = np.repeat(np.arange(lo, hi), counts)
        np.minimum.at(first, part, owner)
        starts = trace.hash_offsets[lo:hi] - start
        place = np.arange(len(part)) - np.repeat(starts, counts)  # 0, 1, ... within its request
        run = np.where(first[part] < owner, np.repeat(counts, counts), place)
        used = np.flatnonzero(counts)
        if len(used):
            hits[lo + used] = np.minimum.reduceat(run, starts[used]) * trace.block_tokens
    return np.minimum(hits, trace.input_tokens)


def _slices(offsets: Ints) -> Iterator[tuple[int, int]]:
    """(first, past last) request of slices with about SLICE ids each: memory stays bounded on long traces."""
    lo = 0
    while lo < len(offsets) - 1:
        hi = int(np.searchsorted(offsets, offsets[lo] + SLICE, side="right")) - 1
        hi = max(hi, lo + 1)
        yield lo, hi
        lo = hi


def stats(trace: Trace) -> dict[str, int | float]:
    """The figures of `stat_labels`, in seconds and tokens; those on prefixes only if the trace has blocks."""
    n = len(trace)
    duration = float(trace.arrival_s[-1] - trace.arrival_s[0])
    _, bursts = np.unique(trace.arrival_s, return_counts=True)
    out: dict[str, int | float] = {
        "requests": n,
        "duration_s": duration,
        "rate_per_s": (n - 1) / duration if duration > 0 else 0.0,
        "distinct_arrivals": len(bursts),
        "largest_burst": int(bursts.max()),
    }
    for key, column in (("input", trace.input_tokens), ("output", trace.output_tokens)):
        p50, p99 = np.percentile(column, (50, 99))
        out[f"{key}_tokens"] = int(column.sum())
        out |= {f"{key}_mean": float(column.mean()), f"{key}_p50": float(p50), f"{key}_p99": float(p99)}
        out[f"{key}_max"] = int(column.max())
    return out | _prefix_stats(trace) if trace.block_tokens else out


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
