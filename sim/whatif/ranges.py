"""Ranges of values on a dotted path, for samples and searches: `{uniform: [1, 8]}`, `{log_uniform: [64 GiB, 4 TiB]}`,
`{choice: [lru, arc]}`.

Between whole numbers there are whole numbers, both ends included. Units are those of the lower end; what is drawn has
six digits, so that a row reads as what ran.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.units import BYTE_UNITS, RATE_UNITS, SECOND_UNITS, TOKEN_UNITS, parse_exact
from traces.random import stream

KINDS = ("uniform", "log_uniform", "choice")
EXAMPLE = "{uniform: [1, 8]}, {log_uniform: [64 GiB, 4 TiB]} or {choice: [lru, arc]}"
UNITS = (BYTE_UNITS, RATE_UNITS, SECOND_UNITS, TOKEN_UNITS)
DIGITS = 6


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high` in `unit` ("" without), `whole` ones alone or not; or one of `choices`."""

    path: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    unit: str = ""
    choices: tuple[Any, ...] = ()

    def at(self, share: float) -> Any:
        """The value that `share` (0 <= share < 1) of the range lies below: uniform shares draw as the range says."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        if self.log:
            return self.value(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        return self.value(low + share * (high - low))

    def value(self, number: float) -> Any:
        """`number`, in the range's unit, as a scenario has it."""
        if self.whole:
            return min(int(number), int(self.high))
        rounded = min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)
        return f"{rounded:.{DIGITS}g} {self.unit}" if self.unit else rounded

    def ends(self) -> list[Any]:
        """Values that a scenario must take if it takes all: the ends, or every choice."""
        return list(self.choices) or [self.value(self.low), self.value(self.high)]


def read_ranges(document: Mapping[str, Any], where: str) -> list[Range]:
    """The ranges of a mapping of dotted paths. Raises InputError."""
    return [_read(path, node, where) for path, node in document.items()]


def sampled(ranges: Sequence[Range], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` draws of a value on every path. Draw i of a path depends on nothing but seed, path and i."""
    return [
        {one.path: one.at(float(stream(seed, f"sweep {one.path}", index).random())) for one in ranges}
        for index in range(count)
    ]


def _read(path: str, node: Any, where: str) -> Range:
    at = f"sample.{path}"
    if not isinstance(node, dict) or len(node) != 1:
        raise InputError("", where=where, path=at, found=node, allowed=EXAMPLE)
    ((kind, values),) = node.items()
    if kind not in KINDS:
        raise InputError("unknown range", where=where, path=at, found=kind, allowed=KINDS, near=KINDS)
    if not isinstance(values, list) or not values or (kind != "choice" and len(values) != 2):
        allowed = "a list of one value or more" if kind == "choice" else "[least, most]"
        raise InputError("", where=where, path=f"{at}.{kind}", found=values, allowed=allowed)
    if kind == "choice":
        return Range(path, choices=tuple(values))
    (low, unit), (high, other) = (_number(value, where, f"{at}.{kind}") for value in values)
    if bool(unit) != bool(other):
        raise InputError("one end has a unit, the other none", where=where, path=f"{at}.{kind}", found=values)
    if unit:
        high = _in_unit(values, unit, where, f"{at}.{kind}")
    if not low < high or (kind == "log_uniform" and low <= 0):
        allowed = "[least, most] with 0 < least < most" if kind == "log_uniform" else "[least, most] with least < most"
        raise InputError("", where=where, path=f"{at}.{kind}", found=values, allowed=allowed)
    whole = all(isinstance(value, int) for value in values)
    return Range(path, low, high, kind == "log_uniform", whole, unit)


def _number(value: Any, where: str, path: str) -> tuple[float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value), ""
    found = (
        re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([A-Za-z][A-Za-z/]*)\s*", value) if isinstance(value, str) else None
    )
    if found is None:
        raise InputError("", where=where, path=path, found=value, allowed="a number, or a number with a unit")
    return float(found[1]), found[2]


def _in_unit(values: Sequence[Any], unit: str, where: str, path: str) -> float:
    """The upper end in the unit of the lower one."""
    for units in UNITS:
        try:
            return float(parse_exact(values[1], units, "") / parse_exact(f"1 {unit}", units, ""))
        except InputError:
            continue
    raise InputError("no such unit, or not the same kind", where=where, path=path, found=values)
