"""The multi-tier bound: by hand, and against an exhaustive search of every way to run two tiers."""

from functools import cache
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from sim.cache.bound import StackBound, TierCost, stack_bound

HBM, DRAM = TierCost(1, 0.0), TierCost(1, 2.0)


def test_one_tier_prices_its_misses():
    # One slot: 3 misses (1, 2, 3) of 5, by keeping 1.
    assert stack_bound([1, 2, 1, 3, 1], [HBM], 10.0) == StackBound(30.0, ((1, 3, 10.0),))


def test_two_tiers_by_hand():
    # 1 2 1 2: with one block 3 misses, with two 2. So 3 accesses cost at least 2 s, and 2 of them 8 s more.
    assert stack_bound([1, 2, 1, 2], [HBM, DRAM], 10.0) == StackBound(3 * 2.0 + 2 * 8.0, ((1, 3, 2.0), (2, 2, 8.0)))


def test_loading_from_the_first_tier_may_cost_as_well():
    assert stack_bound([1, 1, 1], [TierCost(4, 0.5)], 3.0) == StackBound(3 * 0.5 + 2.5, ((4, 1, 2.5),))


def test_tiers_are_taken_by_cost_and_those_dearer_than_recomputing_left_out():
    slow = TierCost(100, 10.0)
    bound = stack_bound([1, 2, 1, 2], [slow, DRAM, HBM], 10.0)
    assert bound == stack_bound([1, 2, 1, 2], [HBM, DRAM], 10.0)


def test_without_tiers_everything_is_recomputed():
    assert stack_bound([1, 1], [], 3.0) == StackBound(6.0, ())
    assert stack_bound([1, 1], [TierCost(0, 1.0)], 3.0) == StackBound(6.0, ((0, 2, 2.0),))
    assert stack_bound([], [HBM], 3.0).seconds == 0


@pytest.mark.parametrize(
    ("tiers", "recompute", "said"),
    [
        ([TierCost(1, -1.0)], 1.0, "load_s"),
        ([TierCost(-1, 1.0)], 1.0, "capacity"),
        ([], float("nan"), "recompute_s"),
        ([], float("inf"), "recompute_s"),
    ],
)
def test_wrong_input(tiers, recompute, said):
    with pytest.raises(InputError, match=f"^{said}: found .*finite"):
        stack_bound([1], tiers, recompute)


def least_seconds(keys, first, second, recompute):
    """Exhaustive: after every access, any of the blocks held (and the one accessed) in either tier.

    Moves away from the first tier are free; one toward it without an access, a prefetch, costs what the load would.
    """
    step = second.load_s - first.load_s

    def splits(pool):
        for near in combinations(pool, min(first.capacity, len(pool))):
            rest = pool - set(near)
            for far in combinations(rest, min(second.capacity, len(rest))):
                yield frozenset(near), frozenset(far)

    @cache
    def from_(place, near, far):
        if place == len(keys):
            return 0.0
        key = keys[place]
        cost = first.load_s if key in near else second.load_s if key in far else recompute
        rest = (
            step * len(to_near - near - {key}) + from_(place + 1, to_near, to_far)
            for to_near, to_far in splits(near | far | {key})
        )
        return cost + min(rest)

    return from_(0, frozenset(), frozenset())


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=9).map(tuple),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([1.0, 3.0, 7.0]),
)
def test_no_way_to_run_two_tiers_is_faster_and_the_best_one_reaches_it(keys, near, far, load_near, load_far):
    first, second = TierCost(near, load_near), TierCost(far, load_far)
    bound = stack_bound(keys, [first, second], 8.0)
    assert bound.seconds == pytest.approx(least_seconds(keys, first, second, 8.0))
