"""workload_aware: what it learns about kinds of blocks, and what it evicts for it."""

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.base import Block, TierInfo
from policies.contract import ModelTier
from policies.eviction.reuse import ReuseModel, probability
from policies.eviction.workload_aware import WorkloadAware

SIZE = 10


class Bench:
    """A tier under the policy, with a clock set by hand."""

    def __init__(self, blocks: int, **options: Any) -> None:
        self.time = 0.0
        self.policy = WorkloadAware(TierInfo("t", blocks * SIZE, SIZE, lambda: self.time), **options)
        self.tier = ModelTier(self.policy, blocks * SIZE)

    def use(self, key: int, *, turn: int = -1, start: int = 0, at: float | None = None) -> bool:
        """One request uses one block."""
        if at is not None:
            self.time = at
        resident = self.tier.blocks.get(key)
        if resident is not None:
            resident.turn = turn
        found = self.tier.get(Block(key, start, SIZE, SIZE, SIZE, turn=turn))
        self.policy.release(self.tier.blocks[key])
        return found

    def order(self) -> list[int]:
        return [block.key for block in self.policy.victims()]


def test_turns_that_are_not_continued_leave_first() -> None:
    """First turns are never used again here, second ones always after 10 s."""
    bench = Bench(1_000)
    for n in range(100):
        bench.use(n, turn=0, at=20.0 * n)
        bench.use(1_000 + n, turn=1)
        bench.use(1_000 + n, turn=1, at=20.0 * n + 10)
    bench.use(5_001, turn=1, at=3_000.0)
    bench.use(5_000, turn=0, at=3_005.0)
    order = bench.order()
    assert order.index(5_000) < order.index(5_001)  # LRU would have it the other way round
    for first in (0, 1_000):
        of_one_kind = [key for key in order if first <= key < first + 100]
        assert of_one_kind == sorted(of_one_kind)  # the one used longest ago leaves first


def test_depths_are_kinds_too() -> None:
    bench = Bench(1_000)
    for n in range(100):
        bench.use(1, start=0, at=float(n))
        bench.use(100 + n, start=5_000)
    bench.use(5_000, start=5_000, at=99.5)
    assert bench.order()[-1] == 1  # the head of all prompts, though a deep block was used after it


def test_a_block_whose_time_has_passed_leaves_before_one_whose_time_is_to_come() -> None:
    """Half the blocks of each kind come back: those of turn 0 after 1 s, those of turn 1 after 100 s."""
    bench = Bench(10_000, interval=30)
    for n in range(200):
        start = 1_000.0 * n
        for turn, wait in ((0, 1.0), (1, 100.0)):
            bench.use(4 * n + turn, turn=turn, at=start + 300 * turn)
            if n % 2:
                bench.use(4 * n + turn, turn=turn, at=start + 300 * turn + wait)
    bench.use(9_001, turn=1, at=500_000.0)
    bench.use(9_000, turn=0, at=500_040.0)
    bench.time = 500_090.0
    order = bench.order()
    assert order.index(9_000) < order.index(9_001)  # LRU would have it the other way round


def test_depth_does_not_break_prefixes() -> None:
    """Most prompts are short and never come back, long ones always do: that must not cost a long one its head."""
    bench = Bench(10_000)
    for n in range(200):
        bench.use(n, turn=0, at=float(n))
        bench.use(1_000 + n, turn=0, start=50_000)
        bench.use(1_000 + n, turn=0, start=50_000)
    bench.use(5_001, turn=0, start=50_000)  # children before parents
    bench.use(5_000, turn=0)
    order = bench.order()
    assert order.index(5_001) < order.index(5_000)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.floats(0, 100)), max_size=30),
    st.sampled_from([None, 1.0, 30.0]),
)
def test_conversations_leave_from_their_ends(turns: list[tuple[int, int, float]], interval: float | None) -> None:
    """Each turn uses all blocks of its conversation so far and some new ones; conversations share nothing."""
    bench = Bench(10_000, interval=interval)
    lengths, counts = dict.fromkeys(range(5), 1), dict.fromkeys(range(5), -1)
    for session, new, wait in turns:
        lengths[session] += new
        counts[session] += 1
        bench.time += wait
        for depth in reversed(range(lengths[session])):
            bench.use(100 * session + depth, turn=counts[session], start=512 * depth)
        for other in range(5):
            depths = [key % 100 for key in bench.order() if key // 100 == other]
            assert depths == sorted(depths, reverse=True)


def test_later_turns_are_one_kind() -> None:
    def kinds(turns: int) -> int:
        bench = Bench(100, turns=turns)
        for turn in range(-1, 9):
            bench.use(turn + 1, turn=turn)
        return len(bench.policy._queues)

    assert [kinds(n) for n in (1, 4, 20)] == [2, 5, 10]


def test_private_blocks_leave_first() -> None:
    bench = Bench(100)
    for n in range(1, 30):
        bench.use(-n, at=float(n))
        bench.use(n)
        bench.use(n)
    assert all(key < 0 for key in bench.order()[:29])


@pytest.mark.parametrize("ghost_ratio", [0.0, 4.0])
def test_a_return_after_an_eviction_counts_if_it_is_remembered(ghost_ratio: float) -> None:
    """A loop over twice what fits: no block is ever hit, but all come back. A stream of others never does."""
    bench = Bench(8, ghost_ratio=ghost_ratio)
    for n in range(400):
        bench.use(n % 10, turn=0, at=10.0 * n)
        bench.use(1_000 + n, turn=1)
    loop = [key for key in bench.order() if key < 1_000]
    if ghost_ratio:
        assert bench.order()[-len(loop) :] == loop
        assert len(loop) > 4
    else:
        assert len(loop) == 4  # it cannot tell them apart and treats them alike


def test_what_was_learnt_is_forgotten() -> None:
    """Turn 0 comes back a thousand times, then turn 1 three hundred times: the window says which experience counts."""

    def leaves_first(window: float) -> int:
        bench = Bench(10_000, window=window)
        for n in range(1_300):
            again = 0 if n < 1_000 else 1
            for turn in (0, 1):
                bench.use(2 * n + turn, turn=turn, at=10.0 * n)
            bench.use(2 * n + again, turn=again, at=10.0 * n + 1)
        bench.use(10_000, turn=0)
        bench.use(10_001, turn=1)
        return next(key for key in bench.order() if key >= 10_000)

    assert leaves_first(0.01) == 10_000
    assert leaves_first(100) == 10_001


def test_the_mean_life_is_the_interval() -> None:
    bench = Bench(2)
    assert bench.policy._model.life == float("inf")
    for n in range(4):
        bench.use(n, at=7.0 * n)
    assert bench.policy._model.life == pytest.approx(14.0)  # each waited for two others


@pytest.mark.parametrize("p", [0.2, 0.9])
@pytest.mark.parametrize("age", [0.0, 5.0, 30.0])
def test_the_probability_is_what_its_definition_says(p: float, age: float) -> None:
    """Blocks that are used again with probability p after an exponential time, counted one by one."""
    source, mean, life = random.Random(1), 10.0, 8.0
    waits = [source.expovariate(1 / mean) if source.random() < p else float("inf") for _ in range(200_000)]
    alive = [wait for wait in waits if wait > age]
    within = 1 - math.exp(-life / mean)
    expected = sum(wait <= age + life for wait in alive) / len(alive)
    assert probability(p, mean, within, age) == pytest.approx(expected, abs=0.01)


def test_the_estimate_converges() -> None:
    source, model = random.Random(2), ReuseModel(1e12)
    for n in range(20_000):
        model.used(n % 2)
        if n % 2 and source.random() < 0.3:
            model.followed(1, source.expovariate(1 / 40))
        elif n % 2 == 0 and source.random() < 0.8:
            model.followed(0, 2.0)
    p, mean, within = model.chance(1, 40.0)
    assert (p, mean, within) == pytest.approx((0.3, 40, 1 - math.exp(-1)), rel=0.05)
    assert model.chance(0, 40.0)[:2] == pytest.approx((0.8, 2), rel=0.02)


def test_without_a_clock_kinds_are_ordered_by_their_share_of_reuse() -> None:
    policy = WorkloadAware(TierInfo("t", 1_000, SIZE))
    tier = ModelTier(policy, 1_000)
    for n in range(20):
        tier.get(Block(n, 0, SIZE, SIZE, SIZE, turn=0))
        tier.get(Block(100 + n, 0, SIZE, SIZE, SIZE, turn=1))
        tier.get(Block(100 + n, 0, SIZE, SIZE, SIZE, turn=1))
    assert [b.key for b in policy.victims()] == [*range(20), *range(100, 120)]


@pytest.mark.parametrize(
    ("option", "value"),
    [("interval", 0), ("interval", "soon"), ("turns", 0), ("turns", 2.5), ("ghost_ratio", -1), ("window", 0)],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option}: found"):
        WorkloadAware(TierInfo("t", 100, SIZE), **{option: value})


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 3), st.integers(0, 4)), max_size=120), st.integers(1, 9))
def test_the_first_victim_of_a_moment_is_the_first_of_a_whole_scan(uses: list[tuple[int, int, int]], room: int) -> None:
    """Ranks are kept from one scan to the next; whatever happened between them, they must not show."""
    bench = Bench(room)
    for key, turn, wait in uses:
        bench.use(key, turn=turn, start=512 * (key % 8), at=bench.time + wait // 3)
        kept = bench.policy._first()
        bench.policy._rank(bench.time)
        assert bench.policy._first() is kept
        assert next(bench.policy._all()) is kept
        assert sorted(bench.order()) == sorted(bench.tier.blocks)
