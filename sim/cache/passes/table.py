"""The explicit table of passes, and how a policy finds its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policies.base import EvictionPolicy
from policies.eviction.arc import ARC
from policies.eviction.clock import Clock
from policies.eviction.fifo import FIFO
from policies.eviction.gdsf import GDSF
from policies.eviction.length_aware import LengthAware
from policies.eviction.lfu import LFU
from policies.eviction.lru_k import LRUK
from policies.eviction.s3fifo import S3FIFO
from policies.eviction.sieve import Sieve
from policies.eviction.two_queue import TwoQueue
from policies.eviction.workload_aware import WorkloadAware
from sim.cache.passes import arc, queues, ranks, workload
from sim.cache.passes.facts import Facts, Pass

PASSES: dict[type, Callable[[Any, int, Facts], Pass]] = {
    FIFO: queues.fifo,
    Clock: queues.clock,
    Sieve: queues.sieve,
    S3FIFO: queues.s3fifo,
    TwoQueue: queues.two_queue,
    ARC: arc.arc,
    LFU: ranks.lfu,
    LengthAware: ranks.length_aware,
    GDSF: ranks.gdsf,
    LRUK: ranks.lru_k,
    WorkloadAware: workload.workload_aware,
}
"""By class of the policy: the same decisions with less work. A subclass is another policy and takes the general path,
`sim.cache.replay`, which a test holds every pass to. LRU and TTL need no pass (`sim.cache.stack`)."""


def pass_of(policy: EvictionPolicy, capacity: int, facts: Facts) -> Pass | None:
    """The pass of a fresh policy with room for `capacity` blocks; None if its class has none."""
    make = PASSES.get(type(policy))
    return None if make is None else make(policy, capacity, facts)
