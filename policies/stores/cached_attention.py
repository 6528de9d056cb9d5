"""CachedAttention: the KV of conversations in host memory and on disks, moved as the scheduler's queue says."""

from __future__ import annotations

from typing import Any

from policies.options import choice, number
from policies.system import Setup, TierPart


def cached_attention(
    *,
    dram: Any = None,
    ssd: Any = None,
    eviction: str = "queue_aware",
    prefetch: str = "look_ahead",
    share: float = 0.5,
) -> Setup:
    """Saves the KV of every conversation beside the steps, and preloads it layer by layer at its next turn.

    Host memory gives up what no waiting request will use first, to the disk; what lies on the disk is brought back for
    the requests at the head of the queue.

    dram      size of the host memory per node
    ssd       size of the disk behind it
    eviction  queue_aware, or lru and fifo, its baselines
    prefetch  look_ahead, or none
    share     of look_ahead: part of the host memory that it may fill for waiting requests

    Source: Gao et al., USENIX ATC 2024 (arXiv 2403.19708): layer-wise preloading and asynchronous saving (3.2),
    scheduler-aware fetching and eviction (3.3), positions apart from KV, so that it outlives a truncation (3.4). What
    differs: blocks are moved, not whole conversations; HBM keeps prefixes too, as engines do today.
    """
    choice("eviction", eviction, ("queue_aware", "lru", "fifo"))
    choice("prefetch", prefetch, ("look_ahead", "none"))
    number("share", share, 0, 1, above=True)
    ahead = {"prefetch": {"name": "look_ahead", "into": "dram", "share": share}} if prefetch == "look_ahead" else {}
    own = {"eviction": {"name": eviction}}
    return Setup(
        tiers=(
            TierPart(
                "dram",
                dram,
                needed=True,
                settings={**own, "offload": {"name": "write_back"}},
                defaults={"shared": "node"},
                policies=ahead,
            ),
            TierPart("ssd", ssd, needed=True, settings=own, defaults={"shared": "node"}),
        ),
        engine={"loading": {"mode": "layerwise"}},
        policies={"offload": {"name": "write_through"}},
    )
