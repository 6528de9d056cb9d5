"""Checks of policy options: a wrong value raises ValueError with the option's name, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable


def number(name: str, value: float, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """`value` if it is a number in [low, high], or in (low, high] with `above`."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not (good and (low < value if above else low <= value) and value <= high):
        bounds = f"a number {'>' if above else '>='} {low:g}" + (f" and <= {high:g}" if high < math.inf else "")
        raise ValueError(f"{name}: found {value!r}, expected {bounds}")
    return value


def whole(name: str, value: int, low: int, high: int) -> int:
    """`value` if it is a whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name}: found {value!r}, expected a whole number from {low} to {high}")
    return value


def choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`."""
    options = tuple(allowed)
    if value not in options:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(options)}")
    return value
