"""The published tables: printed numbers come back as printed, those between them between, the rest is refused."""

from __future__ import annotations

import pytest

from hw_profiles.errors import InputError
from traces.importance.published import CACHED, FLOOR, LAYERS, RECALLS
from traces.importance.table import Table

LONG = 100_000


def test_every_printed_cell_comes_back():
    for selected, row in RECALLS.items():
        columns = CACHED[CACHED.index(selected) :]
        assert len(row) == len(columns)
        for cached, value in zip(columns, row, strict=True):
            line = Table().recalls(selected, cached, 32)
            assert line.at(LONG, 0) * LAYERS + FLOOR == pytest.approx(value)
            assert line.at(cached * 32, 0) == 0.0


def test_between_cells_it_is_between_them():
    line = Table().recalls(20, 30, 32)  # cached = 1.5 selected: between 16 of 24 and 24 of 36
    low, high = Table().recalls(16, 24, 32), Table().recalls(24, 36, 32)
    assert low.at(LONG, 0) < line.at(LONG, 0) < high.at(LONG, 0)


def test_a_larger_cache_recalls_less_between_cells_too():
    found = [Table().recalls(14, cached, 32).at(LONG, 0) for cached in range(14, 129)]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda t: t.recalls(3, 16, 32), "selected pages of recalls, found 3, expected 4 to 64"),
        (lambda t: t.recalls(80, 100, 32), "found 80"),
        (lambda t: t.recalls(16, 256, 32), "cached pages of recalls, found 256, expected 16 to 128"),
        (lambda t: t.recalls(16, 32, 16), "page size of recalls, found 16, expected 32 tokens"),
        (lambda t: t.recalls(16, 8, 32), "a cache must hold the 16 pages that are selected"),
        (lambda t: t.keys_for(0.5), "mass of keys_for, found 0.5, expected 0.9 or 0.99"),
        (lambda t: t.hit_ratio(8192, 1600, 128), "expected 4096 tokens in blocks of 128"),
    ],
)
def test_what_is_not_printed_is_refused(ask, says):
    with pytest.raises(InputError) as error:
        ask(Table())
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_coverage_goes_through_the_printed_masses():
    table = Table()
    assert table.coverage(0, 5000) == 0.0
    assert table.coverage(164, 5000) == pytest.approx(0.9)
    assert table.coverage(320, 5000) == pytest.approx(0.99)
    assert table.coverage(5000, 5000) == 1.0
    found = [table.coverage(kept, 5000) for kept in range(0, 5001, 20)]
    assert found == sorted(found)


def test_one_hit_ratio_is_printed():
    assert Table().hit_ratio(4096, 1600, 128) == 0.6
