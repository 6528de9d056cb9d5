"""Least recently used, but for what waiting requests will use."""

from __future__ import annotations

import math
from collections.abc import Iterator

from policies.base import Block, TierInfo
from policies.eviction.lru import LRU


class QueueAware(LRU):
    """Evicts the least recently used block that no waiting request has in its prompt; if all are wanted, the one whose
    request is last in the queue.

    The scheduler knows who runs next, so a block that the queue asks for is not given up for one that nobody waits for.
    The queue is in the scheduler's order: by arrival, by priority, or by the ranks of a policy under
    `policies.scheduling`; where SGLang reorders by cached prefix, anew at each step, it is by arrival. With an empty
    queue it is `lru`. In a tier that several replicas share, the queues of all of them count.

    Source: scheduler-aware eviction of CachedAttention (B. Gao et al., USENIX ATC 2024, section 3.3.2), which exempts
    the conversations of its look-ahead window and, if that is all there is, evicts from the window's tail. Here the
    window is the whole queue, and blocks are evicted, not conversations.

    Complexity: O(log n) per block of a request that comes to the queue or leaves it; a scan looks at the wanted blocks
    that are colder than what it evicts.
    """

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        if tier.queue is not None:
            tier.queue(0)  # so that it is kept from the start

    def victims(self) -> Iterator[Block]:
        place = self.tier.queue
        if place is None:
            yield from super().victims()
            return
        wanted: list[tuple[float, int, Block]] = []
        for block in super().victims():
            where = math.inf if block.private else place(block.key)
            if where == math.inf:
                yield block
            else:
                wanted.append((-where, -block.start, block))
        wanted.sort(key=lambda entry: entry[:2])
        for _, _, block in wanted:
            yield block
