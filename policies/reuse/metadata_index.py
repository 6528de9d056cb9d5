"""The index that says where the blocks of a prefix lie, as a service that must be asked."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import NamedTuple

from policies.base import RequestView
from policies.options import choice, number, seconds, switch, whole
from policies.reuse.base import PrefixIndex, Visit


class Backend(NamedTuple):
    """A store of metadata.

    round_trip   s on the network for one message and its answer
    message      s of the server for a message, whatever is in it
    key          s of the server for each key of it
    scanned      keys that a range read finds at the price of one; 0: the store has no order
    """

    round_trip: float
    message: float
    key: float
    scanned: int


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "redis": Backend(100e-6, 10e-6, 1e-6, 0),
        "sherman": Backend(6e-6, 0.1e-6, 0.4e-6, 32),
        "chime": Backend(5e-6, 0.1e-6, 0.1e-6, 8),
    }
)
"""Estimates, to be set by whoever has measured theirs. redis: redis.io, "Redis benchmark": some 100,000 requests/s of
one thread without pipelining and a million with it, a TCP round trip in a data centre. sherman, chime: one read over
RDMA with the inner nodes cached (Wang et al., SIGMOD 2022; Luo et al., SOSP 2024); Sherman reads a whole leaf for a
key, CHIME a neighbourhood of a hopscotch table, so it is the faster for points and no better for ranges. That both
search faster than Redis is what arXiv 2505.21919 found."""
MEANS = ("point", "batch", "range")


class MetadataIndex(PrefixIndex):
    """A prompt is looked up block by block in an index before it is sent to a replica.

    backend        redis, sherman or chime: where the defaults of the next three are from
    round_trip     time on the network for a message and its answer
    message        time of the server for a message
    key            time of the server for each key
    by             point: one key after the other, until one is not there, so a message for each; batch: all keys of the
                   prompt in one message; range: batch, and keys that follow each other are read at one go
    block_tokens   tokens of a block that has an entry
    sequential     share of the blocks that lie beside the one before them, so that a range read finds them
    known          share of the blocks of a prompt that a walk by points finds before it stops
    updates        write the blocks of a prompt that were computed, which takes time of the server

    The server is one queue for the cluster: what a lookup asks of it is served together, in order of arrival. Requests
    wait for the answer, and what they find is not looked at: tiers say what is cached, as ever.

    Source: Zhu et al., "Towards Efficient Key-Value Cache Management for Prefix Prefilling in LLM Inference"
    (arXiv 2505.21919, IEEE CLOUD 2025): metadata in Redis, Sherman and CHIME under Mooncake's traces; 86.8 % of the
    blocks of a request lie in sequence there.

    Complexity: O(1).
    """

    def __init__(
        self,
        *,
        backend: str = "redis",
        round_trip: float | str | None = None,
        message: float | str | None = None,
        key: float | str | None = None,
        by: str = "point",
        block_tokens: int = 16,
        sequential: float = 0.868,
        known: float = 0.5,
        updates: bool = True,
    ) -> None:
        store = BACKENDS[choice("backend", backend, BACKENDS)]
        self._trip = store.round_trip if round_trip is None else seconds("round_trip", round_trip)
        self._message = store.message if message is None else seconds("message", message)
        self._key = store.key if key is None else seconds("key", key)
        self._by = choice("by", by, MEANS)
        self._scanned = store.scanned
        self._tokens = whole("block_tokens", block_tokens, 1, 2**31)
        self._sequential = number("sequential", sequential, 0, 1)
        self._known = number("known", known, 0, 1)
        self._updates = switch("updates", updates)
        if by == "range" and not store.scanned:
            ordered = [name for name, store in BACKENDS.items() if store.scanned]
            raise ValueError(f"by: found 'range', expected point or batch: {backend} has no order ({ordered} have)")

    def lookup(self, request: RequestView) -> Visit:
        keys = ceil(request.input_tokens / self._tokens)
        if self._by == "point":
            asked = min(keys, int(self._known * keys) + 1)
            return Visit(asked * self._trip, asked * (self._message + self._key), asked)
        read = float(keys)
        if self._by == "range":
            beside = self._sequential * (keys - 1)
            read = keys - beside + beside / self._scanned
        return Visit(self._trip, self._message + read * self._key, keys)

    def update(self, tokens: int) -> Visit:
        keys = tokens // self._tokens if self._updates else 0
        return Visit(self._trip, self._message + keys * self._key, keys) if keys else Visit(0.0, 0.0, 0)
