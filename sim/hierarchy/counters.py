"""What a tier counts over a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TierCounters:
    """Totals of one tier over a run; bytes are those of one GPU's share."""

    stored_bytes: int = 0
    """Bytes copied into the tier, from either side (for HBM: bytes that became cached, computed or loaded)."""
    loaded_bytes: int = 0
    """Bytes copied out of the tier toward the GPU, to load or to prefetch (for HBM: bytes that prompts reused)."""
    evicted_blocks: int = 0
    evicted_bytes: int = 0
    replaced_bytes: int = 0
    """Bytes given up because a request computes or loads them again (the end of a prompt that is cached whole)."""
    never_loaded_bytes: int = 0
    """Bytes evicted, expired or left at the end that no request had reused and no prefetch had fetched."""
    refused_bytes: int = 0
    """Bytes that a plan wanted to store but for which no room could be made."""
    passed_bytes: int = 0
    """Bytes that passed on their way to the GPU without leaving a copy."""
    moved_bytes: int = 0
    """Bytes that left an exclusive tier because they were loaded toward the GPU."""
    expired_blocks: int = 0
    """Blocks dropped because their policy no longer let them be used."""
    prefetched_bytes: int = 0
    """Bytes that prefetches brought here, or are bringing."""
    prefetch_used_bytes: int = 0
    """Those of them that a request reused, or that were fetched on toward the GPU; the rest was brought in vain."""
    prefetch_late_bytes: int = 0
    """Those of them that were still on their way when a request came to use them: it waited, or computed them."""
    peak_bytes: int = 0
