"""The record of one batch of copies over a link."""

from __future__ import annotations

from typing import NamedTuple

from sim.hierarchy.network import Resource


class Transfer(NamedTuple):
    """What is to be copied over a link."""

    src: str
    dst: str
    size: int
    """Bytes."""
    copies: int
    """Separate copies (one per engine block), each with its own set-up time."""
    reason: str
    """"load" (toward the GPU, for a request whose turn has come), "prefetch" (ahead of that) or "store" (away)."""
    pageable: int = 0
    """Bytes of it whose host memory is not pinned: they go through a bounce buffer."""
    via: tuple[Resource, ...] = ()
    """Shared bandwidths that it crosses besides those that the link always does."""
