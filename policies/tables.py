"""The explicit tables of policies by family: one line per policy, nothing is discovered."""

from __future__ import annotations

from policies.base import EvictionPolicy, OffloadPolicy
from policies.eviction.lru import LRU
from policies.offload.none import NoOffload
from policies.offload.write_back import WriteBack
from policies.offload.write_through import WriteThrough

EVICTION: dict[str, type[EvictionPolicy]] = {
    "lru": LRU,
}

OFFLOAD: dict[str, type[OffloadPolicy]] = {
    "none": NoOffload,
    "write_through": WriteThrough,
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
