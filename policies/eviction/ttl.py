"""Time to live: a block that nobody has used for long enough is gone, full tier or not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from policies.base import Block, EvictionPolicy, TierInfo
from policies.options import seconds


class TTL(EvictionPolicy):
    """Drops blocks that were not used for `ttl`; under pressure evicts the block whose last use ended longest ago.

    ttl   time since the end of the last use after which a block must not be hit any more: text with a unit or a number
          of seconds. A block that is exactly this old may still be hit

    A use ends when the request that pinned the block finishes, and a pinned block is in use. With an unlimited `ttl`
    this is `lru`. Expired blocks free memory, but a tier that is never short of it gains nothing from that: this policy
    says what a service with such a promise does, and how much of the reuse it gives up.

    Source: lifetimes that start anew with each use are what providers of prompt caching sell; 5 minutes is the default
    of Anthropic's ("Prompt caching" in its API documentation, which also sells 1 hour). J. Wang et al., "KVCache cache
    in the wild", USENIX ATC 2025, measure how soon reuse comes.

    Complexity: O(1) amortised per operation (a pinned block is looked at once per `ttl`).
    """

    def __init__(self, tier: TierInfo, *, ttl: float | str = "5 min") -> None:
        super().__init__(tier)
        self.ttl_s = seconds("ttl", ttl, above=True)
        self._order: OrderedDict[int, tuple[float, Block]] = OrderedDict()
        """Blocks with the time of their last use, oldest first."""

    def insert(self, block: Block) -> None:
        self._order[block.key] = (self.tier.now(), block)

    def touch(self, block: Block) -> None:
        self._order[block.key] = (self.tier.now(), block)
        self._order.move_to_end(block.key)

    release = touch

    def expired(self) -> Iterator[Block]:
        found: list[Block] = []
        limit = self.tier.now() - self.ttl_s
        in_use: list[Block] = []
        for used, block in self._order.values():
            if used >= limit:
                break
            (in_use if block.pins else found).append(block)
        for block in in_use:
            self.touch(block)
        return iter(found)

    def victims(self) -> Iterator[Block]:
        return (block for _, block in self._order.values())

    def remove(self, block: Block) -> None:
        del self._order[block.key]
