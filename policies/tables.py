"""The explicit tables of policies by family: one line per policy, nothing is discovered."""

from __future__ import annotations

from policies.base import EvictionPolicy, OffloadPolicy
from policies.eviction.arc import ARC
from policies.eviction.clock import Clock
from policies.eviction.fifo import FIFO
from policies.eviction.gdsf import GDSF
from policies.eviction.length_aware import LengthAware
from policies.eviction.lfu import LFU
from policies.eviction.lru import LRU
from policies.eviction.lru_k import LRUK
from policies.eviction.s3fifo import S3FIFO
from policies.eviction.sieve import Sieve
from policies.eviction.two_queue import TwoQueue
from policies.offload.none import NoOffload
from policies.offload.write_back import WriteBack
from policies.offload.write_through import WriteThrough
from policies.offload.write_through_selective import WriteThroughSelective

EVICTION: dict[str, type[EvictionPolicy]] = {
    "lru": LRU,
    "fifo": FIFO,
    "lfu": LFU,
    "clock": Clock,
    "sieve": Sieve,
    "s3fifo": S3FIFO,
    "arc": ARC,
    "2q": TwoQueue,
    "lru_k": LRUK,
    "gdsf": GDSF,
    "length_aware": LengthAware,
}

OFFLOAD: dict[str, type[OffloadPolicy]] = {
    "none": NoOffload,
    "write_through": WriteThrough,
    "write_through_selective": WriteThroughSelective,
    "write_back": WriteBack,
}

FAMILIES: dict[str, dict[str, type]] = {
    "eviction": dict(EVICTION),
    "offload": dict(OFFLOAD),
}

LATER_FAMILIES: tuple[str, ...] = (
    "prefetch",
    "retention",
    "selection",
    "kv_format",
    "architecture",
    "scheduling",
    "reuse",
    "fleet",
)
"""Families of the scenario schema that have no policies in this version; naming one is refused with that reason."""
