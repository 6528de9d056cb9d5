"""Checks of policy options: a wrong value raises ValueError with the option's name, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from hw_profiles.errors import InputError
from hw_profiles.units import parse_bytes, parse_rate, parse_seconds


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


def rate(name: str, value: float | str) -> float:
    """Bytes/s from a number of bytes/s or from text with a unit ("30 GB/s"), finite and > 0."""
    found: object = value
    if isinstance(value, str):
        found = _parsed(name, value, parse_rate, "a rate such as '30 GB/s'")
    if isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < math.inf:
        return float(found)
    raise ValueError(f"{name}: found {value!r}, expected a rate > 0, such as '30 GB/s' or a number of bytes/s")


def nbytes(name: str, value: int | str) -> int:
    """Bytes from a whole number or from text with a unit ("64 KiB"), > 0."""
    found: object = value
    if isinstance(value, str):
        found = _parsed(name, value, parse_bytes, "a size such as '64 KiB'")
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return found
    raise ValueError(f"{name}: found {value!r}, expected bytes > 0, such as '64 KiB' or a whole number")


def switch(name: str, value: bool) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: found {value!r}, expected true or false")
    return value


def _parsed(name: str, value: str, parse: Callable[[object], float], expected: str) -> float:
    try:
        return parse(value)
    except InputError as error:
        reason = f" ({error.message})" if error.message else ""
        raise ValueError(f"{name}: found {value!r}, expected {expected}{reason}") from None
