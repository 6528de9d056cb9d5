"""The split is a rule: every second value of an axis with both ends, shapes by SHA-256."""

import hashlib

import numpy as np

from calibration.split import every_second, fitted_on, is_unseen, unseen_shapes


def test_every_second_value_and_both_ends() -> None:
    assert every_second(np.array([1.0, 2, 4, 8])).tolist() == [True, False, True, True]
    assert every_second(np.array([8.0, 1, 1, 4, 2, 16])).tolist() == [False, True, True, True, False, True]
    assert every_second(np.array([5.0])).tolist() == [True]


def test_a_point_is_fitted_on_all_axes_or_not_at_all() -> None:
    batch, seq = (axis.ravel() for axis in np.meshgrid([1.0, 2, 4], [128.0, 256, 512, 1024], indexing="ij"))
    assert fitted_on(batch, seq).reshape(3, 4).tolist() == [
        [True, False, True, True],
        [False, False, False, False],
        [True, False, True, True],
    ]


def test_shapes_by_hash() -> None:
    last = int(hashlib.sha256(b"4096,14336").hexdigest()[-1], 16)
    assert is_unseen(4096, 14336) == (last % 2 == 0)
    sizes = [256, 512, 768, 1024, 1536, 2048, 4096, 8192]
    n, k = (axis.ravel().astype(float) for axis in np.meshgrid(sizes, sizes))
    unseen = unseen_shapes(n, k)
    assert 0.25 < unseen.mean() < 0.75
    assert unseen.tolist() == [is_unseen(int(a), int(b)) for a, b in zip(n, k, strict=True)]
