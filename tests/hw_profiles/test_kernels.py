"""Kernel vocabulary: shapes have exactly the named fields."""

import pytest

from hw_profiles.errors import InputError
from hw_profiles.kernels import KERNELS, check_shape


def test_exact_shapes_pass() -> None:
    for name, kernel in KERNELS.items():
        check_shape(name, dict.fromkeys(kernel.fields, 1))


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("gem", {}, "did you mean 'gemm'"),
        (
            "gemm",
            {"m": 1, "n": 1, "k": 1, "dtyp": 1},
            "gemm: unknown shape field, found 'dtyp'.*did you mean 'dtype'",
        ),
        ("gemm", {"m": 1, "n": 1, "k": 1}, "gemm: missing shape field 'dtype'"),
    ],
)
def test_wrong_shapes(name: str, shape: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_shape(name, shape)
