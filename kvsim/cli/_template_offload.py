"""The files of a new offload policy."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""An offload policy for kvsim; as it stands, write-through."""

from collections.abc import Iterable, Sequence

from kvsim import Block, Event, Move, OffloadPolicy, TierView


class $cls(OffloadPolicy):
    """Copies each prompt block away from the GPU as soon as it is computed."""

    # Events that `plan` is called for (in a tier behind HBM: the bytes have arrived, a
    # load has read them, they are leaving):
    #     Event.FILLED    the engine computed the blocks in this step
    #     Event.HIT       a request reused the blocks
    #     Event.EVICTED   the blocks are leaving; the step that needs their memory
    #                     waits until the copies have finished
    listens = (Event.FILLED,)

    # Keyword arguments of a constructor are options of the scenario:
    #     def __init__(self, *, after: int = 1) -> None:
    # is set by `policies: {offload: {name: "$name.py:$cls", after: 2}}`;
    # raise ValueError for a value that makes no sense.

    def plan(
        self, event: Event, blocks: Sequence[Block], tier: TierView
    ) -> Iterable[Move]:
        """Copies to make now; what the tier below holds already is skipped for free."""
        # A block has a key, start, tokens, size, turn and uses (hits since it became
        # resident). The tier has name, below, capacity, used and now, and answers
        # holds_below(block), recompute_s(block), load_s(block, "dram") and store_s.
        if tier.below is None:
            return []
        # For all of them kvsim.moves(blocks, tier.below) says the same, and sooner.
        return [Move(block, tier.below) for block in blocks]
'''

TEST = with_contract(
    '''\
class Tier:
    """A tier with "dram" below it, which holds nothing yet."""

    name, below, capacity, used = "hbm", "dram", 1 << 30, 0

    def holds_below(self, block: kvsim.Block) -> bool:
        return False


def test_it_plans_a_copy_of_what_was_computed() -> None:
    block = kvsim.Block(key=1, start=0, tokens=512, size=512, ready=512)
    plan = $cls().plan(kvsim.Event.FILLED, [block], Tier())
    assert list(plan) == [kvsim.Move(block, "dram")]


def test_it_stores_blocks_that_are_loaded_again() -> None:
    summary = run("$name.py:$cls")
    assert summary["requests"]["finished"] == 200
    assert summary["tiers"]["dram"]["stored_bytes"] > 0
    assert summary["prefix"]["hit_tokens"]["dram"] > 0


def test_it_is_write_through_so_far() -> None:
    """Say here what your policy is to do better than write-through."""
    mine, through = run("$name.py:$cls"), run("write_through")
    assert mine["tiers"]["dram"] == through["tiers"]["dram"]
'''
)

OFFLOAD = Template(POLICY, TEST)
