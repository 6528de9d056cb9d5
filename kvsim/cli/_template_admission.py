"""The files of a new admission policy."""

from __future__ import annotations

from kvsim.cli._template_parts import Template, with_contract

POLICY = '''\
"""An admission policy for kvsim; as it stands, everything may enter."""

from kvsim import AdmissionPolicy, Block, TierInfo


class $cls(AdmissionPolicy):
    """Lets every block into its tier."""

    # Keyword arguments after `tier` are options of the scenario:
    #     def __init__(self, tier: TierInfo, *, least: int = 8) -> None:
    # is set by `policies: {admission: {name: "$name.py:$cls", least: 16}}`;
    # raise ValueError for a value that makes no sense.
    def __init__(self, tier: TierInfo) -> None:
        super().__init__(tier)  # self.tier: name, capacity_bytes, block_bytes, now()

    def admit(self, block: Block) -> bool:
        """Whether the block may enter; asked once for each attempt."""
        # A block has a key, start, tokens, size, turn and uses (hits in the tier that
        # it comes from), which are for reading. What a policy remembers of blocks
        # should be bounded by self.tier.capacity_blocks.
        return True
'''

TEST = with_contract(
    '''\
def test_it_lets_blocks_in_that_are_loaded_again() -> None:
    summary = run("$name.py:$cls")
    assert summary["requests"]["finished"] == 200
    assert summary["tiers"]["dram"]["stored_bytes"] > 0
    assert summary["prefix"]["hit_tokens"]["dram"] > 0


def test_it_is_always_so_far() -> None:
    """Say here what your policy is to do better than letting everything in."""
    mine, always = run("$name.py:$cls"), run("always")
    assert mine["tiers"]["dram"] == always["tiers"]["dram"]
'''
)

ADMISSION = Template(POLICY, TEST)
