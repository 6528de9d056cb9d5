"""First uses and slices agree with a plain loop, whatever the ids look like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import traces.stats
from traces.blocks import first_places, numbered
from traces.order import with_tails
from traces.stats import ideal_hits, stats

IDS = st.lists(st.one_of(st.integers(0, 9), st.integers(2**40, 2**40 + 3), st.integers(0, 2**63 - 1)), max_size=30)


@given(IDS)
def test_first_places(ids):
    assert first_places(np.array(ids, np.int64)).tolist() == [ids.index(i) for i in ids]


@given(IDS)
def test_numbers_are_equal_where_ids_are(ids):
    codes, size = numbered(np.array(ids, np.int64))
    assert len(set(zip(ids, codes.tolist(), strict=True))) == len(set(ids)) == len(set(codes.tolist()))
    assert all(0 <= code < size for code in codes.tolist())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_slices_do_not_change_the_figures(make_trace, monkeypatch, size):
    rows = [(0.0, 5, 1, [1, 2]), (1.0, 3, 1, [7]), (2.0, 9, 1, [1, 2, 3]), (3.0, 6, 1, [1, 2]), (4.0, 12, 1, [1, 2, 3])]
    trace = make_trace(rows, block_tokens=4)
    whole = stats(trace)
    monkeypatch.setattr(traces.stats, "SLICE", size)
    assert ideal_hits(trace).tolist() == [0, 0, 8, 6, 12]
    assert stats(trace) == whole
    assert whole["distinct_tokens"] == 4 + 1 + 3 + 1  # blocks 1, 2 (partial at its first use), 7, 3 (also partial)


def test_tails(make_trace):
    trace = make_trace([(0.0, 5, 1, [8]), (1.0, 4, 1, [8]), (2.0, 3, 1, []), (3.0, 9, 1, [8, 2])], block_tokens=4)
    assert [r.hash_ids for r in with_tails(trace).validate()] == [[8, 9], [8], [10], [8, 2, 11]]
