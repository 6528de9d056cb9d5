"""Belady's bound: equal to an exhaustive search, and never beaten on block hits by a policy of the table."""

from functools import cache
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.tables import EVICTION
from sim.cache.accesses import Hits, accesses_of
from sim.cache.belady import belady_hits
from sim.cache.replay import Replay, cache_info

sequences = st.lists(st.integers(0, 9), min_size=1, max_size=80)


def best(keys, capacity):
    """The most hits of any cache, by trying every content after every access."""

    @cache
    def from_(place, held):
        if place == len(keys):
            return 0
        pool = held | {keys[place]}
        choices = [pool] if len(pool) <= capacity else [frozenset(c) for c in combinations(pool, capacity)]
        return (keys[place] in held) + max(from_(place + 1, choice) for choice in choices)

    return from_(0, frozenset())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 4))
def test_it_is_the_optimum(flat, keys, capacity):
    assert belady_hits(accesses_of(flat(keys)), [capacity])[0].blocks == best(tuple(keys), capacity)


@pytest.mark.parametrize("name", EVICTION)
@settings(max_examples=40)
@given(keys=sequences, capacity=st.integers(1, 8))
def test_no_policy_has_more_block_hits_on_a_flat_sequence(flat, name, keys, capacity):
    accesses = accesses_of(flat(keys))
    found = Replay(accesses).hits(EVICTION[name](cache_info(capacity)), capacity)
    bound = belady_hits(accesses, [capacity])[0]
    assert found.tokens == found.blocks  # blocks of one token, requests of one block
    assert found.blocks <= bound.blocks <= len(keys) - accesses.distinct


@pytest.mark.parametrize("name", EVICTION)
@settings(max_examples=40)
@given(prompts=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=15), capacity=st.integers(1, 8))
def test_no_policy_has_more_block_hits_on_prompts_either(make_trace, name, prompts, capacity):
    accesses = accesses_of(make_trace([(4 * len(ids), ids) for ids in prompts or [[0]]]))
    found = Replay(accesses).hits(EVICTION[name](cache_info(capacity)), capacity)
    assert found.blocks <= belady_hits(accesses, [capacity])[0].blocks


def test_by_hand_with_bypass(flat):
    # One slot: 1 is kept over 2 and 3, which are refused. Without bypass there would be no hit at all.
    assert belady_hits(accesses_of(flat([1, 2, 1, 3, 1])), [1, 2, 3]) == [Hits(2, 2)] * 3
    # The next use decides: with 1, 2 held and 3 coming, 2 (next use at 6) goes; 1 (4) and 3 (5) stay.
    assert belady_hits(accesses_of(flat([1, 2, 3, 9, 1, 3, 2])), [1, 2, 3]) == [Hits(1, 1), Hits(2, 2), Hits(3, 3)]


def test_it_does_not_bound_prefix_tokens(make_trace):
    """With one slot it keeps 2, which is used first, behind a 1 that is missing; LRU is left with 1, a prefix."""
    accesses = accesses_of(make_trace([(8, [1, 2])] * 3))
    assert belady_hits(accesses, [1]) == [Hits(0, 2)]
    assert Replay(accesses).hits(EVICTION["lru"](cache_info(1)), 1) == Hits(8, 0)
