"""Columns give back what went in, in its own type, however many rows there are."""

import numpy as np
import pyarrow as pa
import pytest

from sim.columns import MOST_SUMMANDS, ROWS, Columns
from sim.result import Frames


@pytest.mark.parametrize("rows", [0, 1, ROWS - 1, ROWS, 2 * ROWS + 5])
def test_rows_come_back_by_column(rows):
    columns = Columns({"small": "int16", "real": "float64", "text": "str"})
    words = ["b", "a", "c"]
    for i in range(rows):
        columns.append((i % 300, i / 7, words[i % 3]))
        if i == 10:
            assert len(columns) == 11
            assert columns.numbers("real").tolist() == [k / 7 for k in range(11)]  # reading does not disturb
    assert len(columns) == rows
    assert columns.numbers("small").dtype == np.int16
    assert columns.numbers("small").tolist() == [i % 300 for i in range(rows)]
    assert columns.numbers("real").tolist() == [i / 7 for i in range(rows)]
    texts = columns.texts("text")
    assert [texts[place] for place in columns.numbers("text")] == [words[i % 3] for i in range(rows)]
    assert texts == words[: min(rows, 3)]
    assert columns.among("text", "a", "nowhere").tolist() == [words[i % 3] == "a" for i in range(rows)]


@pytest.mark.parametrize("rows", [0, 1, ROWS - 3, ROWS, 2 * ROWS + 5])
def test_many_rows_at_once_are_the_same_as_one_by_one(rows):
    one, many = (Columns({"small": "int16", "real": "float64", "text": "str"}) for _ in range(2))
    table = [(i % 300, i if i % 2 else i / 7, "bac"[i * i % 3]) for i in range(rows)]
    for columns in (one, many):
        columns.append((7, 0.5, "z"))
    for row in table:
        one.append(row)
    many.extend(iter(table))
    for columns in (one, many):
        columns.append((8, 0.5, "z"))
    assert len(one) == len(many) == rows + 2
    assert one.texts("text") == many.texts("text")
    for name in one.types:
        assert one.numbers(name).dtype == many.numbers(name).dtype
        assert one.numbers(name).tolist() == many.numbers(name).tolist()


def test_rows_are_sorted_by_a_column():
    columns = Columns({"place": "int64", "text": "str"})
    for place in (2, 0, 3, 1):
        columns.append((place, f"row {place}"))
    columns.sort("place")
    columns.append((4, "row 4"))
    texts = columns.texts("text")
    assert columns.numbers("place").tolist() == [0, 1, 2, 3, 4]
    assert [texts[place] for place in columns.numbers("text")] == [f"row {i}" for i in range(5)]


def test_a_number_that_does_not_fit_is_refused():
    columns = Columns({"small": "int16"})
    with pytest.raises(OverflowError):
        columns.append((1 << 15,))
    with pytest.raises(OverflowError):
        columns.extend([(1 << 15,)])


def test_sums_have_the_bits_of_one_at_a_time():
    columns, draw = Columns({"place": "int64", "sum": "float64"}, summed="sum"), np.random.default_rng(0)
    lengths = [1, 2, 7, 8, 9, 127, 128, 129, 1000, 8191, *draw.integers(1, 300, ROWS).tolist()]
    sums = []
    for place, length in enumerate(lengths):
        values = draw.random(3 * length)[::3] if place % 2 else draw.random(length)
        sums.append(float(np.add.reduce(values)) if place % 5 else place / 7)
        if place % 5:
            columns.append((place, 0.0), values)
        else:
            columns.append((place, place / 7))
    assert columns.numbers("sum").tolist() == sums
    assert columns.numbers("place").tolist() == list(range(len(lengths)))


def test_rows_with_much_to_sum_are_not_held():
    columns, many = Columns({"sum": "float64"}, summed="sum"), np.ones(MOST_SUMMANDS // 4)
    for _ in range(4):
        columns.append((0.0,), many)
    assert not columns._parts
    assert columns.numbers("sum").tolist() == [len(many)] * 4


def test_frames_are_made_when_they_are_asked_for():
    frames = Frames({"one": pa.table({"a": [1, 2]}), "two": pa.table({"b": [3]})})
    assert list(frames) == ["one", "two"]
    assert len(frames) == 2
    assert frames["one"].a.tolist() == [1, 2]
    assert frames["one"] is frames["one"]
    assert "three" not in frames
    with pytest.raises(KeyError):
        frames["three"]
    assert repr(frames) == "Frames(one, two)"
