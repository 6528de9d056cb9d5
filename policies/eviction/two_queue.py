"""2Q: a FIFO for blocks seen once, an LRU for blocks that came back."""

from __future__ import annotations

from collections.abc import Iterator

from policies.base import Block, EvictionPolicy, TierInfo
from policies.eviction.chain import Chain, Node
from policies.eviction.ghost import Ghost
from policies.options import number


class TwoQueue(EvictionPolicy):
    """New blocks enter a FIFO; those asked for again after they left it enter an LRU list.

    Hits in the FIFO (A1in) change nothing: they are taken for one burst of uses. What leaves it is remembered by key
    (A1out), and a block whose key is remembered becomes resident in the LRU list (Am). The FIFO gives up its oldest
    block when it holds more than its share, else the LRU list gives up its coldest.

    in_ratio    share of the tier for A1in (Kin)
    out_ratio   bytes of the blocks whose keys A1out remembers, as a share of the tier (Kout)

    Source: T. Johnson, D. Shasha, "2Q: a low overhead high performance buffer management replacement algorithm", VLDB
    1994, the full version, with the paper's settings of 25 % and 50 %.

    Complexity: O(1) per operation.
    """

    def __init__(self, tier: TierInfo, *, in_ratio: float = 0.25, out_ratio: float = 0.5) -> None:
        super().__init__(tier)
        capacity = tier.capacity_bytes
        self.in_share = int(capacity * number("in_ratio", in_ratio, 0, 1))
        self.out_capacity = int(capacity * number("out_ratio", out_ratio, 0, 100))
        self._out = Ghost(self.out_capacity, capacity)
        self._in = Chain()
        self._main = Chain()
        self._nodes: dict[int, Node] = {}

    def miss(self, key: int) -> None:
        self._out.recall(key)

    def insert(self, block: Block) -> None:
        self._out.recall(block.key)  # no miss was seen if the block comes from another tier
        node = self._nodes[block.key] = Node(block)
        (self._main if self._out.claim(block.key) else self._in).push(node)

    def touch(self, block: Block) -> None:
        node = self._nodes[block.key]
        if node.chain is self._main:
            self._main.to_back(node)

    release = touch

    def victims(self) -> Iterator[Block]:
        passed_in, passed_main = self._in.end, self._main.end
        offered_in = 0
        while True:
            first, coldest = self._in.after(passed_in), self._main.after(passed_main)
            if first is not None and (coldest is None or self._in.bytes - offered_in > self.in_share):
                passed_in = first
                offered_in += first.size
                yield first.block
            elif coldest is not None:
                passed_main = coldest
                yield coldest.block
            else:
                return

    def remove(self, block: Block) -> None:
        node = self._nodes.pop(block.key)
        if node.chain is self._in:
            self._in.unlink(node)
            self._out.add(block, node.size)
        else:
            self._main.unlink(node)
