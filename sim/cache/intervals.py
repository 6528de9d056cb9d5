"""How much can be kept from one use to the next in limited room: the most that any cache could have."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from traces.request import Ints

Positions = npt.NDArray[np.int64] | npt.NDArray[np.float64]


class Reuses(NamedTuple):
    """n reuses of a block: from `begin` (after a use) to `end` (the next look for it), in any unit of time; `tokens`
    int64[n] are looked for. Where `end` is not after `begin` the block is in use all along and needs no cache."""

    begin: Positions
    end: Positions
    tokens: Ints

    def where(self, chosen: npt.NDArray[np.bool_]) -> Reuses:
        """The reuses for which `chosen`, bool[n], is true."""
        return Reuses(self.begin[chosen], self.end[chosen], self.tokens[chosen])


def least_missed(reuses: Reuses, capacity: int) -> int:
    """The least tokens that cannot be kept for their reuse in a cache of `capacity` tokens.

    A token that is kept takes room from `begin` to `end`, which may not exceed the capacity at any time; what is not
    kept takes none. Whatever does not fit, the tokens looked for last are given up: that this keeps the most tokens is
    L. A. Belady's MIN, with bypass, for tokens instead of pages; as a problem of intervals (the largest k-colourable
    part of an interval graph) it is solved by the same rule in M. C. Carlisle, E. L. Lloyd, "On the k-coloring of
    intervals", Discrete Applied Mathematics 59, 1995. O(n log n).
    """
    waiting = reuses.end > reuses.begin
    begin, end, tokens = reuses.where(waiting)
    if not len(begin):
        return 0
    if capacity <= 0:
        return int(tokens.sum())
    n = len(begin)
    # At equal times what is looked for leaves before anything else comes: events 0 .. n - 1 are ends, the rest begins.
    times = np.concatenate((end, begin))
    order: list[int] = np.lexsort((np.repeat((0, 1), n), times)).tolist()
    # Reuses in order of their ends, so that a heap of (minus) numbers has the one that ends last on top.
    rank = np.empty(n, np.int64)
    rank[np.argsort(end, kind="stable")] = np.arange(n)
    numbers: list[int] = rank.tolist()
    kept = [0] * n
    sizes: list[int] = tokens.tolist()
    last: list[int] = []
    used = missed = 0
    for event in order:
        if event < n:
            number = numbers[event]
            used -= kept[number]
            kept[number] = 0
            continue
        number, size = numbers[event - n], sizes[event - n]
        kept[number] = size
        used += size
        heappush(last, -number)
        while used > capacity:
            victim = -last[0]
            given_up = min(kept[victim], used - capacity)
            kept[victim] -= given_up
            used -= given_up
            missed += given_up
            if not kept[victim]:
                heappop(last)
    return missed
