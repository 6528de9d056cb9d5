"""LRU at every capacity at once, with a time to live or without: a block is resident while its depth fits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sim.cache.accesses import ENGINE_BLOCK, Accesses, Hits, previous_use
from traces.request import Ints


def lru_hits(accesses: Accesses, capacities: Sequence[int], ttl_s: float = math.inf) -> list[Hits]:
    """What `sim.cache.replay` gives for LRU, for each capacity (blocks, at least 1); a test holds the two equal.

    With `ttl_s`, for the policy `ttl`: also a block whose last use lies longer back, by arrival times, is gone. That
    changes nothing for the others, since whatever LRU evicts or time drops is always the bottom of the same stack.

    The depth of a block is the number of distinct blocks used since its last use, itself included; LRU holds it while
    depth <= capacity. SOURCE: R. L. Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems
    Journal 9(2), 1970. O(n log n) in numpy for all capacities together.
    """
    n = len(accesses.keys)
    previous = previous_use(accesses.keys)
    now = np.arange(n)
    counts = np.diff(accesses.bounds)
    arrival = np.repeat(accesses.bounds[:-1], counts)
    before = previous.copy()  # last use before the request: an id may come twice in one
    while (inside := before >= arrival).any():
        before[inside] = previous[before[inside]]
    at_use = _depths(previous, previous, now)
    at_lookup = _depths(previous, before, arrival)
    if ttl_s < math.inf:
        used_s = np.repeat(accesses.arrival_s, counts)
        oldest = used_s - ttl_s
        at_use[(previous >= 0) & (used_s[previous] < oldest)] = n + 1
        at_lookup[(before >= 0) & (used_s[before] < oldest)] = n + 1
    # A prefix is resident while its deepest block is: the running maximum from the start of the prompt, which is the
    # last access of its request, so over reversed arrays; the offset starts it afresh for every request.
    offset = np.repeat(np.arange(len(counts))[::-1], counts) * (n + 2)
    prefix = np.maximum.accumulate((at_lookup + offset)[::-1])[::-1] - offset
    lengths = _by_request(accesses.tokens, accesses.bounds)

    def hits(capacity: int) -> Hits:
        found = _by_request(np.where(prefix <= capacity, accesses.tokens, 0), accesses.bounds)
        engine = np.minimum(found, np.maximum(lengths - 1, 0)) // ENGINE_BLOCK * ENGINE_BLOCK
        return Hits(int(found.sum()), int(np.count_nonzero(at_use <= capacity)), int(engine.sum()))

    return [
        hits(capacity)
        for capacity in np.minimum(capacities, n).tolist()  # a depth of n + 1 means never used before
    ]


def _by_request(tokens: Ints, bounds: Ints) -> Ints:
    """int64[requests]: their sums over the accesses of each request."""
    sums = np.concatenate(([0], np.cumsum(tokens)))
    return np.asarray(sums[bounds[1:]] - sums[bounds[:-1]])


def _depths(previous: Ints, last: Ints, now: Ints) -> Ints:
    """int64[n]: depth just before access `now` of a block last used at `last`; n + 1 where that is -1.

    Blocks used since are the accesses q in (last, now) that have no use of the same block in between, which means
    previous[q] <= last; and every q <= last satisfies that too.
    """
    depths = np.full(len(last), len(previous) + 1)
    known = np.flatnonzero(last >= 0)
    depths[known] = 1 + count_below(previous + 1, now[known], last[known] + 2) - (last[known] + 1)
    return depths


def count_below(values: Ints, ends: Ints, limits: Ints) -> Ints:
    """int64[k]: how many of `values[: ends[k]]` are below `limits[k]`; all values and limits >= 0.

    A wavelet matrix that is not kept: for every bit, from the highest, values are sorted stably by it, and each query
    follows its range. SOURCE: F. Claude, G. Navarro, "The wavelet matrix", SPIRE 2012.
    """
    top = max(int(values.max(initial=0)), int(limits.max(initial=0)))
    lo, hi = np.zeros(len(ends), np.int64), ends.astype(np.int64)
    below = np.zeros(len(ends), np.int64)
    for bit in reversed(range(top.bit_length())):
        ones = (values >> bit) & 1 == 1
        zeros = np.concatenate(([0], np.cumsum(~ones)))
        zeros_lo, zeros_hi = zeros[lo], zeros[hi]
        up = (limits >> bit) & 1 == 1
        below += np.where(up, zeros_hi - zeros_lo, 0)
        lo = np.where(up, zeros[-1] + lo - zeros_lo, zeros_lo)
        hi = np.where(up, zeros[-1] + hi - zeros_hi, zeros_hi)
        values = np.concatenate((values[~ones], values[ones]))
    return below
