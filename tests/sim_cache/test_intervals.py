"""What can be kept between uses: by hand, and against every choice there is."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.cache.intervals import Reuses, least_missed


def reuses(*rows):
    begin, end, tokens = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    return Reuses(begin, end, tokens)


def test_what_is_looked_for_last_is_given_up():
    # From 0 on three lie in room for 20 tokens: the one that is needed at 9 goes, and half of the next one.
    assert least_missed(reuses((0, 3, 15), (0, 5, 10), (0, 9, 10)), 20) == 10 + 5


def test_room_is_free_again_when_a_block_is_looked_for():
    assert least_missed(reuses((0, 4, 8), (4, 9, 8)), 8) == 0
    assert least_missed(reuses((0, 4, 8), (3, 9, 8)), 8) == 8


def test_what_is_still_in_use_needs_no_room():
    assert least_missed(reuses((5, 5, 8), (7, 5, 8)), 0) == 0
    assert least_missed(reuses((5, 6, 8)), 0) == 8
    assert least_missed(reuses(), 3) == 0


def test_times_need_not_be_whole():
    found = Reuses(np.array([0.0, 0.25]), np.array([0.5, 0.75]), np.array([4, 4]))
    assert least_missed(found, 4) == 4
    assert least_missed(found, 6) == 2


rows = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 3))


@given(st.lists(rows, max_size=6), st.integers(0, 8))
def test_no_choice_of_what_to_keep_misses_less(found, capacity):
    """Every number of tokens of every reuse, of which those that are kept may never exceed the capacity together."""
    wanted = [(begin, end, tokens) for begin, end, tokens in found if end > begin]
    best = max(
        sum(kept)
        for kept in product(*(range(tokens + 1) for _, _, tokens in wanted))
        if all(
            sum(n for n, (begin, end, _) in zip(kept, wanted, strict=True) if begin <= time < end) <= capacity
            for time in range(7)
        )
    )
    assert least_missed(reuses(*found), capacity) == sum(tokens for _, _, tokens in wanted) - best
