"""The longest prefix that the router itself remembers sending, unless the load is out of balance."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from policies.base import RequestView
from policies.options import number, whole
from policies.routing.base import ReplicaView, Router


class ApproximatePrefix(Router):
    """As `cache_aware`, by a record of what it sent where in place of the caches, of which it hears nothing.

    threshold       share of the prompt's blocks that one record must have for the records to decide
    balance_abs     loads are out of balance when the most and the least loaded replicas differ by more requests than
                    this, and
    balance_rel     the most loaded has more than this many times the requests of the least loaded
    limit           tokens that the record of one replica holds: beyond, the blocks that were sent longest ago are
                    forgotten, the ends of prompts before their beginnings

    Where the records do not decide, the replica with the smallest record gets the request if loads are balanced, else
    the least loaded one; of equals, in turn. Loads are exact: a router sees its requests go and their answers come.
    What replicas evict, and what they found no room for, stays in the record; a replica that starts anew keeps its own.

    Source: the cache_aware policy of SGLang's router (sgl-router, approximate radix tree per worker; --cache-threshold,
    --balance-abs-threshold, --balance-rel-threshold; --max-tree-size of 2^26 characters, here 2^24 tokens at four
    characters each, an estimate). It evicts every --eviction-interval, here at once.

    Complexity: O(replicas x blocks of the prompt); memory by `limit`.
    """

    def __init__(
        self, *, threshold: float = 0.3, balance_abs: int = 64, balance_rel: float = 1.5, limit: int = 2**24
    ) -> None:
        self._threshold = number("threshold", threshold, 0, 1)
        self._abs = whole("balance_abs", balance_abs, 0, 2**31)
        self._rel = number("balance_rel", balance_rel, 1)
        self._limit = whole("limit", limit, 0, 2**62)
        self._records: dict[int, _Record] = {}
        self._next = 0

    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        count = len(replicas)
        records = [self._records.setdefault(replica.index, _Record()) for replica in replicas]
        loads = [replica.running + replica.waiting for replica in replicas]
        most, least = max(loads), min(loads)
        if most - least > self._abs and most > self._rel * least:
            candidates = [i for i, load in enumerate(loads) if load == least]
        else:
            matches = [record.match(request.keys) for record in records]
            best = max(matches)
            if best > self._threshold * len(request.keys):
                candidates = [i for i, match in enumerate(matches) if match == best]
            else:
                smallest = min(record.tokens for record in records)
                candidates = [i for i, record in enumerate(records) if record.tokens == smallest]
        chosen = min(candidates, key=lambda i: (loads[i], (i - self._next) % count))
        self._next = (chosen + 1) % count
        records[chosen].sent(request.keys, request.input_tokens, self._limit)
        return chosen


class _Record:
    """Blocks that were sent to one replica, those of long ago first; a block is older than those before it."""

    def __init__(self) -> None:
        self.tokens = 0
        self._blocks: OrderedDict[int, int] = OrderedDict()

    def match(self, keys: Sequence[int]) -> int:
        """Leading blocks of a prompt that were sent there."""
        blocks = self._blocks
        return next((place for place, key in enumerate(keys) if key not in blocks), len(keys))

    def sent(self, keys: Sequence[int], tokens: int, limit: int) -> None:
        """A prompt of so many tokens goes there; blocks count alike."""
        blocks = self._blocks
        for key in reversed(keys):
            if key not in blocks:
                blocks[key] = tokens // len(keys)
                self.tokens += blocks[key]
            blocks.move_to_end(key)
        while self.tokens > limit:
            self.tokens -= blocks.popitem(last=False)[1]
