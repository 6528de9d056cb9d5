"""Checks of policy options: a wrong value raises ValueError with the option's name, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hw_profiles.errors import InputError
from hw_profiles.units import parse_seconds


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


def seconds(name: str, value: float | str, low: float = 0.0, *, above: bool = False) -> float:
    """Seconds from a plain number of seconds or from text with a unit ("5 min"), finite and >= `low` (> with `above`).

    Elsewhere in a scenario a time without a unit is refused; here a number is taken as seconds, so that a policy can be
    built from Python with one.
    """
    found: object = value
    if isinstance(value, str):
        try:
            found = parse_seconds(value)
        except InputError as error:
            reason = f" ({error.message})" if error.message else ""
            raise ValueError(f"{name}: found {value!r}, expected a time such as '5 min'{reason}") from None
    if isinstance(found, int | float) and not isinstance(found, bool):
        good = low < found or (low == found and not above)
        if good and math.isfinite(found):
            return float(found)
    bound = f"{'>' if above else '>='} {low:g} s"
    raise ValueError(f"{name}: found {value!r}, expected a time {bound}, such as '5 min' or a number of seconds")
