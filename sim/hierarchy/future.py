"""When a block is used next, for bounds that know the trace: the order of arrival of an open load."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from traces.request import Trace


class Future:
    """The requests of a trace that are still to come, by the blocks of their prompts.

    A request counts until it is admitted (or rejected), since that is when an engine looks its blocks up. What a
    preempted request uses again is not foreseen. Only for open load: in a closed loop arrivals depend on the system.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._gone = bytearray(len(trace))

    def admitted(self, index: int) -> None:
        """Request `index` is no longer to come."""
        self._gone[index] = 1

    def of(self, comes: Callable[[int], bool]) -> Callable[[int], float]:
        """`TierInfo.next_use` of a tier that the requests for which `comes(index)` is true can use.

        The index of the next such request with a key, math.inf if there is none. Never decreases for a key; O(1)
        amortised, after O(n log n) for the n ids of the trace when it is first asked.
        """
        left: dict[int, list[int]] = {}  # requests to come by key, the next one last
        asked = False
        gone = self._gone

        def next_use(key: int) -> float:
            nonlocal left, asked
            if not asked:
                left, asked = self._by_key(comes), True
            requests = left.get(key)
            while requests:
                if not gone[requests[-1]]:
                    return requests[-1]
                requests.pop()
            return math.inf

        return next_use

    def _by_key(self, comes: Callable[[int], bool]) -> dict[int, list[int]]:
        trace = self._trace
        chosen = np.fromiter((comes(index) for index in range(len(trace))), np.bool_, len(trace))
        owners = np.repeat(np.arange(len(trace)), np.diff(trace.hash_offsets))
        counted = chosen[owners]
        keys, owners = trace.hash_ids[counted], owners[counted]
        order = np.lexsort((-owners, keys))
        keys, owners = keys[order], owners[order]
        if not len(keys):
            return {}
        firsts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        parts = zip(firsts.tolist(), [*firsts[1:].tolist(), len(keys)], strict=True)
        listed = owners.tolist()
        return {key: listed[lo:hi] for key, (lo, hi) in zip(keys[firsts].tolist(), parts, strict=True)}
