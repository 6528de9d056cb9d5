"""What a router may see and say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, SupportsIndex

from policies.base import RequestView


class ReplicaView(Protocol):
    """What a router may see of a replica: exact, as it is when a request arrives; with `Router.stale_s`, as it was when
    the replica last said so."""

    @property
    def index(self) -> int:
        """Number of the replica, for good; not its place in the list, which changes as others come and go."""

    @property
    def running(self) -> int:
        """Requests in the batch."""

    @property
    def waiting(self) -> int:
        """Requests in the queue, those whose prefix is being loaded included."""

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of the requests here that have no token yet, cached ones included."""

    @property
    def active_tokens(self) -> int:
        """Tokens whose KV is held in HBM by requests here, shared ones once; what is merely cached is not counted."""

    def cached_tokens(self, keys: Sequence[int], level: int | None = None) -> int:
        """Tokens of a prompt (its blocks' chained hashes) that are cached as a prefix in the replica's tiers.

        level: of the tier behind which nothing counts (0: in HBM alone). None: all of its tiers, shared ones included.
        """


def replica_of(answer: object, count: int) -> int | None:
    """The place of one of `count` replicas that a router's answer is, numpy's whole numbers included; None if it is
    none."""
    if isinstance(answer, bool) or not isinstance(answer, SupportsIndex):
        return None
    index = answer.__index__()
    return index if 0 <= index < count else None


class Router(ABC):
    """Says which replica gets a request, once, when it arrives.

    What a router promises: `choose` returns the place of one of the replicas in the list that it is shown, and its
    answers follow from the calls, from what the views show and from `seed` alone.
    """

    seed: int = 0
    """That of the scenario, set before the first request: for routers that draw (`traces.random.stream`)."""
    stale_s: float = 0.0
    """Seconds between two reports of the replicas, all at once: views show the last one. 0: exact, without delay."""
    adds_sent: bool = True
    """With `stale_s`: views add what was sent to a replica since its last report, as requests that wait there. So does
    vLLM's data-parallel load balancer (vllm/v1/engine/core_client.py, DPLBAsyncMPClient), between the counts that it
    gets every 100 ms; SGLang's router and Dynamo's count all that they have under way. False: the report alone."""

    @abstractmethod
    def choose(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        """Place in `replicas` of the one that gets the request; they are those that take requests now."""
