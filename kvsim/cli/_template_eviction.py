"""The files of a new eviction policy."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""An eviction policy for kvsim; as it stands, least recently used."""

from collections import OrderedDict
from collections.abc import Iterator

from kvsim import Block, EvictionPolicy, TierInfo


class $cls(EvictionPolicy):
    """Evicts the block whose last use ended longest ago."""

    # Keyword arguments after `tier` are options of the scenario:
    #     def __init__(self, tier: TierInfo, *, window: int = 8) -> None:
    # is set by `policies: {eviction: {name: "$name.py:$cls", window: 16}}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)  # self.tier: name, capacity_bytes, block_bytes, now()
        self._order: OrderedDict[int, Block] = OrderedDict()

    # The tier owns bytes, residency and pins; the policy owns only the order. A block
    # has a key, start (tokens of the prompt before it), tokens, size, uses (hits since
    # it came), turn, parent (key of the block before it), and private (a request's
    # own output, which no other request can hit). All of them are for reading.

    def insert(self, block: Block) -> None:
        """The block became resident."""
        self._order[block.key] = block

    def touch(self, block: Block) -> None:
        """A request hit the block."""
        self._order.move_to_end(block.key)

    def release(self, block: Block) -> None:
        """Its last user is done with it (children come before their parents)."""
        self._order.move_to_end(block.key)

    # Two more hooks, for ghost lists and for lifetimes:
    #     def miss(self, key: int) -> None
    #     def expired(self) -> Iterator[Block]

    def victims(self) -> Iterator[Block]:
        """Every resident block once, coldest first; the tier takes what it needs."""
        # One by one, as here: a list of all blocks would be made for every eviction.
        return iter(self._order.values())

    def remove(self, block: Block) -> None:
        """The block left the tier. Only now may the policy forget it."""
        del self._order[block.key]
'''

TEST = with_contract(
    '''\
def test_it_chooses_what_leaves() -> None:
    summary = run("$name.py:$cls")
    assert summary["requests"]["finished"] == 200
    assert summary["tiers"]["hbm"]["evicted_blocks"] > 0


def test_it_is_lru_so_far() -> None:
    """Say here what your policy is to do better than LRU."""
    mine, lru = run("$name.py:$cls"), run("lru")
    assert mine["prefix"]["hit_tokens"] == lru["prefix"]["hit_tokens"]
'''
)

EVICTION = Template(POLICY, TEST)
