"""What `kvsim new policy` writes: a policy that works as it stands, and its tests. `$` names are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Template(NamedTuple):
    """The two files of a new policy, as string.Template texts over `name`, `cls` and `family`."""

    policy: str
    test: str


EVICTION_POLICY = '''\
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
        super().__init__(tier)  # self.tier: name, capacity_bytes, block_bytes
        self._order: OrderedDict[int, Block] = OrderedDict()

    # The tier owns bytes, residency and pins; the policy owns only the order. A block
    # has a key (negative: a request's own output), start, tokens, size and uses, which
    # are for reading.

    def insert(self, block: Block) -> None:
        """The block became resident."""
        self._order[block.key] = block

    def touch(self, block: Block) -> None:
        """A request hit the block."""
        self._order.move_to_end(block.key)

    def release(self, block: Block) -> None:
        """Its last user is done with it (children come before their parents)."""
        self._order.move_to_end(block.key)

    # One more hook, for ghost lists: def miss(self, key: int) -> None

    def victims(self) -> Iterator[Block]:
        """Every resident block once, coldest first; the tier takes what it needs."""
        return iter(self._order.values())

    def remove(self, block: Block) -> None:
        """The block left the tier. Only now may the policy forget it."""
        del self._order[block.key]
'''

OFFLOAD_POLICY = '''\
"""An offload policy for kvsim; as it stands, write-through."""

from collections.abc import Iterable, Sequence

from kvsim import Block, Event, Move, OffloadPolicy, TierView


class $cls(OffloadPolicy):
    """Copies each prompt block away from the GPU as soon as it is computed."""

    # Events that `plan` is called for:
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
        # A block has a key, start, tokens, size and uses (hits since it became
        # resident); the tier has name, below, capacity, used and holds_below(block).
        if tier.below is None:
            return []
        return [Move(block, tier.below) for block in blocks]
'''

_TEST_HEAD = '''\
import sys
from pathlib import Path
from typing import Any

$imports

sys.path.insert(0, str(Path(__file__).parent))  # found however pytest is started

'''

_TEST_SCENARIO = '''\
HERE = Path(__file__).resolve().parent

# The start of the sample that ships with kvsim, in an HBM too small to keep it all.
SCENARIO = {
    "schema": "kvsim-scenario/1",
    "trace": {"name": "quickstart", "limit": 200},
    "model": "llama-3.1-8b",
    "hardware": {"profile": "h100-sxm"},
    "engine": {"num_gpu_blocks": 12_000},
    "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "64 GiB"}],
}


def run(policy: str) -> dict[str, Any]:
    """The summary of the scenario under a policy."""
    document = {**SCENARIO, "policies": {"$family": policy}}
    scenario = kvsim.Scenario.from_dict(document, base_dir=HERE)
    return scenario.run(check=True).summary


'''

EVICTION_TEST = (
    '"""Tests of $name: the contract of eviction policies, and a scenario."""\n\n'
    + _TEST_HEAD.replace("$imports", "import kvsim\nimport pytest")
    + "from $name import $cls\n\n"
    + _TEST_SCENARIO
    + '''\
@pytest.mark.parametrize("seed", range(4))
def test_the_contract_is_kept(seed: int) -> None:
    """Random operations; a broken rule is a kvsim.ContractError that names it."""
    kvsim.check_policy($cls, seed=seed, operations=2_000)


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

OFFLOAD_TEST = (
    '"""Tests of $name: its plans, and a scenario."""\n\n'
    + _TEST_HEAD.replace("$imports", "import kvsim")
    + "from $name import $cls\n\n"
    + _TEST_SCENARIO
    + '''\
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

TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        "eviction": Template(EVICTION_POLICY, EVICTION_TEST),
        "offload": Template(OFFLOAD_POLICY, OFFLOAD_TEST),
    }
)
"""Files of a new policy by its family."""
