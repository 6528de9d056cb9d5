"""The bound of a hierarchy: by hand, and against an exhaustive search of every way to run it."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sim.cache.bound import Step, Visits, lower_bound
from sim.cache.prices import Prices, prices_of, spent_s

BLOCK = 4


def visits(trace, looked_up=None, done=None, reusable=None, priced=None):
    """All requests of a trace, one after the other unless told otherwise."""
    n = len(trace)
    turn = np.arange(n)
    return Visits(
        trace,
        turn,
        turn if looked_up is None else np.array(looked_up),
        turn if done is None else np.array(done),
        trace.input_tokens if reusable is None else np.array(reusable),
        np.ones(n, bool) if priced is None else np.array(priced),
    )


def flat_prices(*load_s, compute_s=10.0):
    return Prices(load_s, np.array([compute_s]), 1 << 20)


def test_one_tier_by_hand(make_trace):
    # Blocks 1 2 | 3 | 1 2 of 4 tokens with room for one of them: five blocks, of which three are new and one is kept.
    trace = make_trace([(8, [1, 2]), (4, [3]), (8, [1, 2])])
    found = lower_bound(visits(trace), [BLOCK], flat_prices(0.0))
    assert found.first_s == 3 * BLOCK * 10.0
    assert found.steps == (Step(BLOCK, BLOCK, BLOCK * 10.0),)
    assert found.seconds == 4 * BLOCK * 10.0


def test_two_tiers_by_hand(make_trace):
    # 1 2 | 1 2 | 1 2: of 4 reuses of a block, room for one leaves 2 (one block is kept all along), room for two none.
    trace = make_trace([(8, [1, 2])] * 3)
    one = lower_bound(visits(trace), [BLOCK, BLOCK], flat_prices(0.0, 2.0))
    assert one.first_s == 2 * BLOCK * 10.0
    assert one.steps == (Step(BLOCK, 2 * BLOCK, 2 * BLOCK * 2.0), Step(2 * BLOCK, 0, 0.0))
    half = lower_bound(visits(trace), [BLOCK, BLOCK // 2], flat_prices(0.0, 2.0))
    assert half.steps[1] == Step(6, 2 * 2, 2 * 2 * 8.0)  # half a block fits in the second tier, twice


def test_a_tier_that_is_dearer_than_computing_or_than_a_tier_behind_it_is_never_charged_more(make_trace):
    trace = make_trace([(8, [1, 2])] * 3)
    dear = lower_bound(visits(trace), [0, 8], flat_prices(0.0, 99.0))
    assert dear.seconds == lower_bound(visits(trace), [0], flat_prices(0.0)).seconds == 6 * BLOCK * 10.0
    # Blocks may be in the tier behind, from where they cost less: the bound does not say which.
    behind = lower_bound(visits(trace), [0, 8, 8], flat_prices(0.0, 5.0, 3.0))
    assert behind.seconds == 2 * BLOCK * 10.0 + 4 * BLOCK * 3.0


def test_prices_that_differ_by_block_are_cut_into_parts_none_of_which_costs_too_much(make_trace):
    # Tokens of the second block cost 30 s, those of the first 10 s. Nothing fits, so all is computed three times.
    prices = Prices((0.0,), np.array([10.0, 30.0]), BLOCK)
    trace = make_trace([(8, [1, 2])] * 3)
    assert lower_bound(visits(trace), [0], prices).seconds == 3 * BLOCK * (10.0 + 30.0)
    # Room for one: the dearer block could be kept both times.
    assert lower_bound(visits(trace), [BLOCK], prices).seconds == BLOCK * (40.0 + 2 * 10.0)


def test_what_cannot_be_reused_is_computed_by_everyone(make_trace):
    trace = make_trace([(7, [1, 2]), (7, [1, 2])])
    found = lower_bound(visits(trace, reusable=[6, 6]), [99], flat_prices(0.0))
    assert found.seconds == (7 + 1) * 10.0
    blind = make_trace([(7, [])] * 2, block_tokens=0)
    assert lower_bound(visits(blind, reusable=[0, 0]), [99], flat_prices(0.0)).seconds == 14 * 10.0


def test_a_request_that_overlaps_with_the_last_use_finds_its_blocks_without_a_cache(make_trace):
    trace = make_trace([(4, [1]), (4, [1]), (4, [1])])
    together = visits(trace, [0.0, 1.0, 9.0], [5.0, 2.0, 9.5])
    assert lower_bound(together, [0], flat_prices(0.0)).seconds == 2 * BLOCK * 10.0  # the third comes 4 s too late


def test_preempted_requests_are_not_priced_but_keep_their_blocks_alive(make_trace):
    trace = make_trace([(4, [1]), (4, [1])])
    apart = visits(trace, [0.0, 6.0], [5.0, 7.0], priced=[False, True])
    assert lower_bound(apart, [0], flat_prices(0.0)).seconds == BLOCK * 10.0
    during = visits(trace, [0.0, 4.0], [5.0, 7.0], priced=[False, True])
    assert lower_bound(during, [0], flat_prices(0.0)).seconds == 0


def test_with_blocks_fetched_ahead_only_computing_is_priced(make_trace):
    trace = make_trace([(8, [1, 2])] * 2)
    prices = flat_prices(0.0, 2.0)
    assert lower_bound(visits(trace), [0, 4], prices).seconds == BLOCK * (20.0 + 2.0 + 10.0)
    assert lower_bound(visits(trace), [0, 4], prices, fetched_ahead=True).seconds == BLOCK * (20.0 + 10.0)


def test_requests_count_in_the_order_in_which_they_were_looked_up(make_trace):
    rows = [(4, [1]), (4, [2]), (4, [1])]
    late = visits(make_trace(rows), looked_up=[0, 2, 1], done=[0, 2, 1])
    assert lower_bound(late, [0], flat_prices(0.0)).seconds == 3 * BLOCK * 10.0
    assert lower_bound(late, [BLOCK], flat_prices(0.0)).seconds == 2 * BLOCK * 10.0


class Costs:
    """A copy takes 3 s and 1 s for every 8 bytes, a step 5 s and 1 s for every 100 tokens of prefix."""

    def load_s(self, tier, size):
        return {"dram": 3.0, "ssd": 30.0}[tier] + size / 8

    def recompute_s(self, start, tokens):
        assert tokens == 64
        return 5.0 + start / 100

    def store_s(self, source, target, size):
        raise AssertionError


def test_prices_are_shares_of_a_long_copy_and_of_a_full_step():
    prices = prices_of(Costs(), ["hbm", "dram", "ssd"], chunk=64, longest=150, token_bytes=2)
    assert prices.load_s == pytest.approx((0, (3 + 16) / 64, (30 + 16) / 64))
    assert prices.compute_s == pytest.approx([5 / 64, 5.64 / 64, 6.28 / 64])
    total = prices.from_start_s(np.array([0, 64, 96, 400]))
    assert total == pytest.approx([0, 5, 5 + 5.64 / 2, 5 + 5.64 + 6.28 * (400 - 128) / 64])
    assert prices.to_compute_s(np.array([64]), np.array([32])) == pytest.approx(5.64 / 2)


def test_a_later_token_is_never_the_cheaper_one():
    class Falling(Costs):
        def recompute_s(self, start, tokens):
            return 9.0 - start / 64

    assert prices_of(Falling(), ["hbm"], chunk=64, longest=200, token_bytes=2).compute_s == pytest.approx(4 * [9 / 64])


def test_what_was_spent_is_the_end_of_each_prompt_and_the_loads():
    prices = Prices((0.0, 2.0), np.array([10.0, 30.0]), BLOCK)
    load_s, compute_s = spent_s(prices, np.array([8, 6]), np.array([[4, 1], [0, 0]]))
    assert (load_s, compute_s) == (1 * 2.0, 3 * 30.0 + 4 * 10.0 + 2 * 30.0)


# ---- every way to run a hierarchy


def least_seconds(rows, capacities, load_s, compute_s):
    """Exhaustive. A request finds any of its blocks (no whole prefixes needed) where they lie; then whatever was held
    or used may lie in any tier, but nothing comes nearer to the GPU unless it was used."""
    tiers = len(capacities)
    nowhere = tiers

    @cache
    def from_(place, held):
        if place == len(rows):
            return 0.0
        used = rows[place]
        where = dict(held)
        spent = sum(min(load_s[where[key]], compute_s(key)) if key in where else compute_s(key) for key in used)
        return spent + min(from_(place + 1, after) for after in placements({**where, **dict.fromkeys(used, 0)}))

    def placements(least):
        keys = sorted(least)
        for chosen in product(*(range(least[key], nowhere + 1) for key in keys)):
            if all(chosen.count(tier) <= capacities[tier] for tier in range(tiers)):
                yield tuple((key, tier) for key, tier in zip(keys, chosen, strict=True) if tier != nowhere)

    return from_(0, ())


blocks = st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(tuple)
hierarchies = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0, 3.0, 12.0])), min_size=1, max_size=3)


@given(st.lists(blocks, min_size=1, max_size=5).map(tuple), hierarchies, st.sampled_from([8.0, 9.0]))
@example(((1,), (2, 1), (2,)), [(1, 0.0)], 8.0)  # found at once, used, and replaced by what the same request brought
def test_no_way_to_run_a_hierarchy_is_faster(make_trace, rows, tiers, deep_s):
    """Blocks of one token, at a price of their own: 8 s for the even ones, 8 or 9 s for the others."""
    capacities, load_s = zip(*tiers, strict=True)
    prices = Prices(load_s, np.array([8.0, deep_s]), 1)

    def compute_s(key):
        return deep_s if key % 2 else 8.0

    # Ids as block_tokens = 1 wants them: an odd one second or later, an even one first, in requests of their own.
    singles = [(key, place) for place, row in enumerate(rows) for key in row]
    trace = make_trace([(1 + key % 2, [99 + i, key] if key % 2 else [key]) for i, (key, _) in enumerate(singles)], 1)
    turn = np.array([place for _, place in singles])
    asked = Visits(trace, np.arange(len(trace)), turn, turn, trace.input_tokens, np.ones(len(trace), bool))
    extra = sum(8.0 for key, _ in singles if key % 2)  # the unique block before each odd one
    bound = lower_bound(asked, capacities, prices).seconds - extra
    least = least_seconds(rows, capacities, load_s, compute_s)
    assert bound <= least + 1e-9
    if deep_s == 8.0 and list(load_s) == sorted(load_s) and load_s[0] == 0:
        assert bound == pytest.approx(least)  # and the best way reaches it
