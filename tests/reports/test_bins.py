import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import bins as b

TIMES = st.floats(-5, 105, allow_nan=False)


@given(st.lists(st.tuples(TIMES, st.floats(0, 300), st.floats(0, 1e6)), min_size=1, max_size=30), st.integers(1, 40))
def test_spread_equals_the_overlap_matrix_and_keeps_totals(rows, number):
    bins = b.TimeBins(0.0, 100.0 / number, number)
    start = np.array([r[0] for r in rows])
    end = start + np.array([r[1] for r in rows])
    amount = np.array([r[2] for r in rows])
    (got,) = b.spread(bins, start, end, amount)
    assert got.sum() == pytest.approx(amount.sum(), rel=1e-9, abs=1e-6)
    left = bins.start + bins.width * np.arange(number)
    for s, e, a in zip(start, end, amount, strict=True):
        inside = s >= 0.0 and e <= 100.0
        if not inside or e - s < 1e-6:
            return  # what lies outside is clipped into the outer bins: only the total is promised
        share = np.clip(np.minimum(left + bins.width, e) - np.maximum(left, s), 0, None) / (e - s)
        got = got - a * share
    assert np.abs(got).max() <= 1e-6 * max(1.0, amount.sum())


def test_spread_gives_an_instant_to_one_bin():
    bins = b.TimeBins(10.0, 1.0, 4)
    (got,) = b.spread(bins, np.array([12.5]), np.array([12.5]), np.array([8.0]))
    assert got.tolist() == [0, 0, 8, 0]


def test_spread_leaves_out_what_never_happened():
    bins = b.TimeBins(0.0, 1.0, 2)
    (got,) = b.spread(bins, np.array([0.0, np.nan]), np.array([2.0, 1.0]), np.array([4.0, 100.0]))
    assert got.tolist() == [2, 2]


def test_count_sums_weights_and_skips_nan():
    bins = b.TimeBins(0.0, 1.0, 3)
    assert b.count(bins, np.array([0.5, 2.5, np.nan, 2.9])).tolist() == [1, 0, 2]
    assert b.count(bins, np.array([0.5, np.nan]), np.array([7.0, 9.0])).tolist() == [7, 0, 0]


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1000)), min_size=1, max_size=60), st.floats(1, 100))
def test_percentiles_are_the_nearest_rank_of_each_bin(rows, point):
    bins = b.TimeBins(0.0, 2.5, 4)
    times, values = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    (got,) = b.percentiles(bins, times, values, (point,))
    where = bins.index(times)
    for i in range(4):
        inside = np.sort(values[where == i])
        if len(inside):
            assert got[i] == inside[max(int(np.ceil(len(inside) * point / 100)) - 1, 0)]
        else:
            assert np.isnan(got[i])


def test_cdf_keeps_both_ends_and_the_tail_of_a_long_column():
    values = np.random.default_rng(1).permutation(np.arange(1.0, 100_001.0))
    x, share = b.cdf(values)
    assert len(x) < 400
    assert (x[0], x[-1]) == (1.0, 100_000.0)
    assert np.array_equal(share, x / 100_000)
    assert 99_900.0 in x  # p99.9 itself is kept


def test_cdf_of_nothing_is_empty():
    x, share = b.cdf(np.array([np.nan]))
    assert len(x) == len(share) == 0


@pytest.mark.parametrize(("events", "number"), [(0, 24), (1_000, 50), (12_031, 120)])
def test_time_bins_cover_the_run_exactly(events, number):
    bins = b.time_bins(27.5, 3600.0, events)
    assert bins.count == number
    assert bins.end == pytest.approx(3600.0)
    assert bins.centres[0] == pytest.approx(27.5 + bins.width / 2)


def test_time_bins_of_an_instant_have_a_width():
    assert b.time_bins(5.0, 5.0, 1).width > 0
