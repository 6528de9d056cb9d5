"""Copy every block as soon as it is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.base import Block, Event, Move, OffloadPolicy, TierView, moves
from policies.options import switch


class WriteThrough(OffloadPolicy):
    """Copies each prompt block to the tier below at the end of the step that computed it.

    Eviction is then free, at the price of storing blocks that are never loaded. Default of vLLM's offloading
    connector and of SGLang HiCache (`write_through`). In a tier behind HBM it passes on what has just arrived.

    hits   also copy what a request hits and the tier below does not have (any more, or yet), as LMCache does, which
           stores all whole chunks of each prompt that it lacks (lmcache/v1/cache_engine.py, `store`)
    """

    def __init__(self, *, hits: bool = False) -> None:
        self.listens = (Event.FILLED, Event.HIT) if switch("hits", hits) else (Event.FILLED,)

    def plan(self, event: Event, blocks: Sequence[Block], tier: TierView) -> Iterable[Move]:
        if tier.below is None:
            return ()
        return moves(blocks, tier.below)
