"""Residual tables: exact at their points, bounded between them, held outside, the same bits for scalars and arrays."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.cost_models import AllReduceModel, DecodeModel, GemmModel
from hw_profiles.documents import read_document
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.prefill_cost import PrefillModel
from hw_profiles.residual import Residual, octaves
from hw_profiles.yaml_io import dump_yaml

TABLE = Residual((("batch", (1.0, 8.0, 64.0)), ("bytes", (1e6, 4e6))), (1.0, 1.2, 0.9, 1.1, 1.3, 0.8))
CUBE = Residual((("m", (1.0, 16.0)), ("n", (1024.0, 4096.0)), ("k", (1024.0,))), (1.0, 2.0, 3.0, 4.0))
SHIPPED = Path(__file__).parents[2] / "hw_profiles" / "profiles"
positive = st.floats(1e-3, 1e12, allow_nan=False)


def test_exact_at_its_points_and_held_outside() -> None:
    for i, batch in enumerate((1.0, 8.0, 64.0)):
        for j, nbytes in enumerate((1e6, 4e6)):
            assert TABLE.at(batch, nbytes) == TABLE.ratio[2 * i + j]
    assert TABLE.at(0.5, 1.0) == 1.0
    assert TABLE.at(1e5, 1e12) == 0.8
    assert TABLE.at(0.0, 4e6) == 1.2


def test_between_points_it_is_linear_in_octaves() -> None:
    assert TABLE.at(4.0, 1e6) == pytest.approx(1.0 + (0.9 - 1.0) * 2 / 3)
    assert CUBE.at(4.0, 2048.0, 7.0) == pytest.approx((1 + 2 + 3 + 4) / 4)


@given(x=positive, y=positive)
def test_octaves_rise_and_stay_near_log2(x: float, y: float) -> None:
    assert abs(octaves(x) - math.log2(x)) < 0.0861
    assert (octaves(x) < octaves(y)) == (x < y) or math.isclose(x, y, rel_tol=1e-12)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9))
def test_arrays_give_the_bits_of_scalars(points: list[tuple[float, float]]) -> None:
    batch, nbytes = np.array(points).T
    assert TABLE.at(batch, nbytes).tolist() == [TABLE.at(*point) for point in points]
    assert TABLE.at(np.array(points[0][0]), nbytes).tolist() == [TABLE.at(points[0][0], y) for _, y in points]
    assert all(0.8 - 1e-12 <= ratio <= 1.3 + 1e-12 for ratio in TABLE.at(batch, nbytes))


@settings(deadline=None)
@given(other=positive, points=st.lists(positive, min_size=1, max_size=9))
def test_along_one_axis_it_is_a_curve(other: float, points: list[float]) -> None:
    points.sort()
    for table, axis, others in ((TABLE, 1, [other]), (TABLE, 0, [other]), (CUBE, 0, [other, 7.0])):
        curve = table.along(axis, others)
        where = [[*others[:axis], x, *others[axis:]] for x in (*points, *table.axes[axis][1])]
        assert [curve.at(w[axis]) for w in where] == pytest.approx([table.at(*w) for w in where], rel=1e-13)
        assert curve.along(np.array(points)).tolist() == [curve.at(x) for x in points]
    flat = CUBE.along(2, (other, 2048.0))
    assert flat.at(3.0) == flat.along(np.array([3.0, 1e9]))[1] == CUBE.at(other, 2048.0, 3.0)


@settings(deadline=None)
@given(m=positive, n=positive)
def test_at_some_coordinates_it_is_a_smaller_table(m: float, n: float) -> None:
    for fixed, rest in (({"k": 5.0}, (m, n)), ({"n": n}, (m, 5.0)), ({"n": n, "k": 5.0}, (m,)), ({"m": m}, (n, 5.0))):
        table = CUBE.fixed(**fixed)
        assert table.names == tuple(name for name in CUBE.names if name not in fixed)
        assert table.at(*rest) == pytest.approx(CUBE.at(m, n, 5.0), rel=1e-13)


@settings(deadline=None)
@given(batch=st.integers(1, 3000), points=st.lists(positive, min_size=1, max_size=9))
def test_decode_at_one_batch_size_is_the_model(batch: int, points: list[float]) -> None:
    points.sort()
    for model in (DecodeModel(1e-5, 5e-6, 1e-7, 3e12, TABLE, share=0.5), DecodeModel(1e-5, 5e-6, 1e-7, 3e12)):
        curve = model.at_batch(batch)
        assert curve.along(np.array(points)).tolist() == [curve.seconds(x) for x in points]
        expected = [model.seconds(batch, x) for x in points]
        assert [curve.seconds(x) for x in points] == pytest.approx(expected, rel=1e-13)
        for x in points:
            moving = model.ratio(batch, x) * x / model.bandwidth
            at_floor = model.t0 + model.per_seq * batch + x / model.bandwidth <= model.floor
            assert curve.reading_s(x) == (0.0 if at_floor else pytest.approx(moving, rel=1e-13))


def test_models_multiply_it_in() -> None:
    decode = DecodeModel(1e-5, 5e-6, 1e-7, 3e12)
    with_table = DecodeModel(1e-5, 5e-6, 1e-7, 3e12, TABLE)
    assert with_table.seconds(64, 4e6) == 0.8 * decode.seconds(64, 4e6)
    fewer_heads = DecodeModel(1e-5, 5e-6, 1e-7, 3e12, TABLE, share=1 / 8)
    assert fewer_heads.ratio(64, 4e6) == 1.1
    steps = np.array([1e6, 2e6, 4e6])
    assert with_table.seconds(np.array(64.0), steps).tolist() == [with_table.seconds(64.0, x) for x in steps.tolist()]
    gemm = GemmModel(4e-6, 3e12, 8e14, 3.0, CUBE)
    assert gemm.seconds(1e6, 1e9, (16.0, 4096.0, 1024.0)) == pytest.approx(4 * gemm.seconds(1e6, 1e9))
    cells = Residual((("heads", (8.0, 32.0)), ("tokens", (1.0,)), ("context", (1.0,))), (3.0, 2.0))
    prefill = PrefillModel(1e-5, 1e-8, 5e14, cells)
    assert prefill.seconds(100, 1e9) == pytest.approx(2 * (1e-5 + 1e-6 + 2e-6))
    total = AllReduceModel(4, 1e-5, 1e11, Residual((("bytes", (1e3, 1e6)),), (1.0, 2.0)))
    assert total.seconds(1e6) == pytest.approx(2 * 2e-5)


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ({"axes": {"batch": [1]}, "ratio": [1.0]}, r"axes: found 'batch', expected the axes batch, bytes"),
        ({"axes": {"batch": [2, 1], "bytes": [1]}, "ratio": "1.0 1.0"}, "ascending numbers above 0"),
        ({"axes": {"batch": [0, 1], "bytes": [1]}, "ratio": "1.0 1.0"}, "ascending numbers above 0"),
        ({"axes": {"batch": [1, 2], "bytes": [1]}, "ratio": 1.0}, r"ratio: found '1 of them', expected text of 2 num"),
        ({"axes": {"batch": [1, 2], "bytes": [1]}, "ratio": "1.0 0"}, r"ratio: found 0.0, expected numbers above 0"),
        ({"axes": {"batch": [1, 2], "bytes": [1]}, "ratio": "1.0 x"}, r"ratio: found \"'x'\", expected numbers above"),
        (
            {"axes": {"batch": [1], "bytes": [1]}, "ratio": [[1.0], [1.0]]},
            r"ratio: found '2 items', expected a list of 1",
        ),
        ({"axes": {"batch": [1], "bytes": [1]}, "ratio": [["x"]]}, r"ratio\[0\]\[0\]: found 'x', expected a number"),
        (
            {"axes": {"batch": [1], "bytes": [1]}, "ratio": float("nan")},
            r"ratio: found nan, expected numbers above 0",
        ),
        ({"axes": {"batch": [1], "bytes": [1]}, "ratio": "1", "spline": 3}, "unknown key, found 'spline'"),
    ],
)
def test_malformed_tables(tmp_path: Path, node: object, problem: str) -> None:
    document, _ = read_document(SHIPPED / "h100-sxm.yaml")
    for group in document["kernels"].values():
        group.pop("residual", None)
    document["kernels"]["decode_attn"]["residual"] = node
    file = tmp_path / "mine.yaml"
    file.write_text(dump_yaml(document))
    with pytest.raises(InputError, match=problem):
        load_profile(file)
