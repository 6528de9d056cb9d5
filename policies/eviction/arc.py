"""ARC: two LRU lists whose shares follow the misses that each could have avoided."""

from __future__ import annotations

from collections.abc import Iterator

from policies.base import Block, EvictionPolicy, TierInfo
from policies.eviction.chain import Chain, Node
from policies.eviction.ghost import Ghost


class ARC(EvictionPolicy):
    """Splits the tier between blocks used once and blocks used again, and learns the split from what it evicted.

    T1 holds blocks used once since they arrived, T2 the others, both in LRU order; B1 and B2 remember the keys that
    left each. A miss that B1 remembers says that T1 is too small and raises its target `p`; one in B2 lowers it; either
    way the block comes back into T2. T1 gives up its coldest block when it is over its target, else T2 does. B1 is cut
    to keep T1 + B1 within the tier's size, and all four lists together within twice that. Sizes are bytes, the unit
    of adaptation is the size of the block that came back: with equal blocks this is the paper's algorithm.

    Source: N. Megiddo, D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, section IV,
    figure 4. There the directories are cut before the replacement and here after the insert, which leaves the same
    lists; a serving engine evicts for several blocks at once, so the replacement does not know for which.

    Complexity: O(1) amortised per operation.
    """

    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)
        self._capacity = tier.capacity_bytes
        self._target = 0.0
        self._once, self._again = Chain(), Chain()
        self._left_once = Ghost(None, self._capacity)
        self._left_again = Ghost(None, self._capacity)
        self._nodes: dict[int, Node] = {}
        self._missed_again = False

    def miss(self, key: int) -> None:
        once, again = self._left_once, self._left_again
        b1, b2 = once.bytes, again.bytes
        self._missed_again = False
        if size := once.recall(key):
            self._target = min(self._capacity, self._target + max(b2 / b1, 1) * size)
        elif size := again.recall(key):
            self._target = max(0, self._target - max(b1 / b2, 1) * size)
            self._missed_again = True

    def insert(self, block: Block) -> None:
        self.miss(block.key)  # adapts if no miss was seen because the block comes from another tier
        once, again = self._left_once, self._left_again
        returns = once.claim(block.key) or again.claim(block.key)
        node = self._nodes[block.key] = Node(block)
        (self._again if returns else self._once).push(node)
        while len(once) and self._once.bytes + once.bytes > self._capacity:
            once.pop_oldest()
        rest = 2 * self._capacity - self._once.bytes - self._again.bytes
        while len(again) and once.bytes + again.bytes > rest:
            again.pop_oldest()

    def touch(self, block: Block) -> None:
        node = self._nodes[block.key]
        if node.chain is self._once:
            self._once.unlink(node)
            self._again.push(node)
        else:
            self._again.to_back(node)

    def release(self, block: Block) -> None:
        node = self._nodes[block.key]
        (self._once if node.chain is self._once else self._again).to_back(node)

    def victims(self) -> Iterator[Block]:
        passed_once, passed_again = self._once.end, self._again.end
        offered_once = 0
        while True:
            once, again = self._once.after(passed_once), self._again.after(passed_again)
            held = self._once.bytes - offered_once
            over = held > self._target or (self._missed_again and held == self._target)
            if once is not None and (over or again is None):
                passed_once = once
                offered_once += once.size
                yield once.block
            elif again is not None:
                passed_again = again
                yield again.block
            else:
                return

    def remove(self, block: Block) -> None:
        node = self._nodes.pop(block.key)
        if node.chain is self._once:
            self._once.unlink(node)
            self._left_once.add(block, node.size)
        else:
            self._again.unlink(node)
            self._left_again.add(block, node.size)
