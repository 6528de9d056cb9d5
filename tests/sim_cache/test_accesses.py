import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import InputError
from sim.cache.accesses import accesses_of, next_use, previous_use


def test_children_come_before_parents_and_a_partial_block_has_its_own_tokens(make_trace):
    made = accesses_of(make_trace([(10, [7, 3, 9]), (4, [7])]))
    assert made.bounds.tolist() == [0, 3, 4]
    assert made.keys.tolist() == [2, 0, 1, 1]  # 9, 3, 7, then 7
    assert made.tokens.tolist() == [2, 4, 4, 4]
    assert made.starts.tolist() == [8, 4, 0, 0]
    assert (made.distinct, made.block_tokens, made.input_tokens) == (3, 4, 14)
    assert made.segments() == [(0, 3), (3, 4)]
    assert made.prefix_tokens() == [10, 8, 4, 4]


def test_larger_blocks_are_named_by_their_last_small_one(make_trace):
    made = accesses_of(make_trace([(18, [1, 2, 3, 4, 5]), (16, [1, 2, 3, 4]), (4, [1]), (8, [1, 6])]), 8)
    assert made.bounds.tolist() == [0, 3, 5, 6, 7]
    names = np.array([5, 4, 2, 4, 2, 1, 6])  # first request: (1 2) (3 4) (5), deepest first
    assert [len(set(zip(made.keys, names, strict=True))), made.distinct] == [5, 5]
    assert made.tokens.tolist() == [2, 8, 8, 8, 8, 4, 8]
    assert made.starts.tolist() == [16, 8, 0, 8, 0, 0, 0]


@pytest.mark.parametrize("size", [-4, 0, 2, 3, 6, 10])
def test_other_block_sizes_are_refused(make_trace, size):
    with pytest.raises(InputError, match=rf"block_tokens: .*found {size}, expected a multiple of the trace's 4"):
        accesses_of(make_trace([(4, [1])]), size)


def test_a_trace_without_ids_is_refused(make_trace):
    with pytest.raises(InputError, match=r"made\.jsonl: has no hash ids"):
        accesses_of(make_trace([(4, []), (9, [])], block_tokens=0))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_previous_and_next_use_match_a_search(keys):
    array = np.array(keys, dtype=np.int64)
    n = len(keys)
    before = [max((q for q in range(p) if keys[q] == keys[p]), default=-1) for p in range(n)]
    after = [min((q for q in range(p + 1, n) if keys[q] == keys[p]), default=n) for p in range(n)]
    assert previous_use(array).tolist() == before
    assert next_use(array).tolist() == after
