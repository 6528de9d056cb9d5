"""Which measured points a fit may see. The split is a rule, so nobody chooses it with the result in view.

Fitted is every second value of each axis of a table, its ends kept; all other points are held out. A matrix shape
(n, k) is unseen when the SHA-256 of the text "n,k" is even: none of its rows is ever fitted.
"""

from __future__ import annotations

import hashlib

import numpy as np

from calibration.fitting import Array, Mask


def every_second(values: Array) -> Mask:
    """True where a value is the first, third, fifth... or last of the distinct ones in ascending order."""
    distinct = np.unique(values)
    return np.isin(values, np.append(distinct[::2], distinct[-1:]))


def fitted_on(*axes: Array) -> Mask:
    """True for the points that lie on every second value of each axis."""
    mask: Mask = np.logical_and.reduce([every_second(axis) for axis in axes])
    return mask


def is_unseen(n: int, k: int) -> bool:
    """True for a matrix shape that no fit sees."""
    return int(hashlib.sha256(f"{n},{k}".encode()).hexdigest(), 16) % 2 == 0


def unseen_shapes(n: Array, k: Array) -> Mask:
    """`is_unseen` of every row."""
    known = {shape: is_unseen(*shape) for shape in {(int(a), int(b)) for a, b in zip(n, k, strict=True)}}
    return np.array([known[int(a), int(b)] for a, b in zip(n, k, strict=True)], dtype=bool)
