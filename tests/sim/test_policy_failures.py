"""A policy that breaks its contract is one line: which policy, what it did, when."""

import pytest

from hw_profiles.errors import InputError
from policies.base import Block
from sim.engine.replica import Replica
from sim.hierarchy.copies import land
from sim.invariants import InvariantError
from sim.run import simulate

EVICTION = """\
from kvsim import EvictionPolicy


class Bad(EvictionPolicy):
    def __init__(self, tier):
        super().__init__(tier)
        self.order = {{}}

    def insert(self, block):
        self.order[block.key] = block

    def touch(self, block):
        pass

    def victims(self):
        {victims}

    def remove(self, block):
        self.order.pop(block.key, None)
"""
OFFLOAD = """\
from kvsim import Block, Event, Move, OffloadPolicy


class Bad(OffloadPolicy):
    listens = (Event.FILLED,)

    def plan(self, event, blocks, tier):
        {plan}
"""


def line_of(scenario) -> str:
    """The one line that running the scenario ends with."""
    with pytest.raises(InputError) as caught:
        simulate(scenario, check=True)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("mine.yaml: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("victims", "said"),
    [
        ("return iter(())", "victims() ended"),
        ("yield from [b for b in self.order.values() for _ in (1, 2)]", "twice"),
        ("return 3", "victims() must yield blocks"),
        ("yield 3", "victims() must yield blocks"),
        ("import kvsim; yield kvsim.Block(77, 0, 16, 99, 16)", "which is not in the tier"),
        ("raise RuntimeError('no idea')", "RuntimeError: no idea (my_policy.py, line"),
    ],
)
def test_victims_that_cannot_be(beside, victims, said):
    line = line_of(beside(EVICTION.format(victims=victims), {"eviction": "my_policy.py:Bad"}))
    assert said in line
    assert "20 s" in line  # the third prompt is the first that needs room


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("return [Move(b, 'ssd') for b in blocks]", "a move to 'ssd', expected one of dram"),
        ("return [Move(b, tier.below) for b in blocks for _ in (1, 2)]", "the same move twice"),
        ("return 3", "plan() must return moves"),
        ("return [3]", "plan() must return moves"),
        ("return [Move(3, tier.below)]", "not one of the blocks"),
        ("return [Move(blocks[99], tier.below)]", "IndexError: list index out of range (my_policy.py, line 8"),
    ],
)
def test_plans_that_cannot_be(beside, plan, said):
    assert said in line_of(beside(OFFLOAD.format(plan=plan), {"offload": "my_policy.py:Bad"}, dram="10 GiB"))


def test_exit_at_import_is_a_bad_policy(beside):
    assert "failed to load: SystemExit" in line_of(beside("raise SystemExit(3)", {"eviction": "my_policy.py:Bad"}))


def test_a_lost_request_ends_the_run(scenario, prompt, monkeypatch):
    monkeypatch.setattr(Replica, "enqueue", lambda self, seq: None)
    with pytest.raises(InvariantError, match="nothing is left to happen"):
        simulate(scenario([(0, 100, 1, prompt(1, 100)), (5, 100, 1, prompt(2, 100))]))


def test_a_shorter_copy_in_hbm_does_not_hide_a_longer_one_behind_it(run):
    """Replica 0 has 96 tokens of the block, the shared DRAM has all 512 from replica 1."""
    rows = [(0, 96, 1, [50]), (10, 512, 1, [50]), (20, 600, 1, [50, 51])]
    result = run(rows, dram="10 GiB", shared="node", hardware={"profile": "h100-sxm", "replicas": 2})
    assert result.frames["requests"].hit_dram_tokens[2] == 512
    assert result.frames["requests"].hit_hbm_tokens[2] == 0


def test_parts_that_overtake_each_other_are_ready_in_order():
    copy = Block(1, 0, 512, 512, 0)
    land(copy, 128, 256)
    assert copy.ready == 0
    land(copy, 400, 512)
    assert copy.ready == 0
    land(copy, 0, 128)
    assert copy.ready == 256
    land(copy, 256, 400)
    assert copy.ready == 512


def test_an_exact_block_count_needs_only_the_memory(scenario, prompt):
    """The engine's own count is taken although the utilization would leave nothing for KV."""
    rows = [(0, 100, 1, prompt(1, 100))]
    tight = {"gpu_memory_utilization": 0.1}
    assert simulate(scenario(rows, blocks=100, engine=tight)).summary["requests"]["finished"] == 1
    with pytest.raises(InputError, match="does not fit"):
        simulate(scenario(rows, engine=tight))


def test_no_memory_for_kv_is_refused(scenario, prompt):
    with pytest.raises(InputError, match="does not fit"):
        simulate(scenario([(0, 100, 1, prompt(1, 100))]).set("tiers.hbm.capacity", "0 B"))


def test_a_prefetch_policy_that_changes_a_request_is_named(beside):
    source = "import kvsim\n\n\nclass Bad(kvsim.PrefetchPolicy):\n    listens = (kvsim.Trigger.FINISHED,)\n\n"
    source += "    def plan(self, trigger, request, cache):\n        request.think_s = 3.0\n        return ()\n"
    line = line_of(beside(source, {"prefetch": "my_policy.py:Bad"}, dram="10 GiB"))
    assert "prefetch policy Bad broke its contract: plan() changed request 0, which is for reading, at 0.0" in line
