"""Quantities with units: exact SI (kB = 1000 B) and IEC (KiB = 1024 B), never silently the other.

Text such as "2 TiB" exists only at the edge; inside everything is a plain SI number: bytes, seconds, bytes/s,
FLOP/s, tokens. A number without a unit is refused (except 0), and so are negatives, NaN and infinities.
Parsing goes through `Fraction`, so results are exact (or correctly rounded where a float is returned).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from hw_profiles.errors import InputError, nearest

_NUMBER = re.compile(
    r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?\.?(?:nan|inf(?:inity)?))\s*(.*?)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_SI = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_IEC = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_MAX_EXPONENT = 40  # "1e999999999 B" must fail at once, not compute a huge integer


def _table(entries: Mapping[str, Any]) -> Mapping[str, Fraction]:
    return MappingProxyType({name: Fraction(value) for name, value in entries.items()})


BYTE_UNITS = _table({f"{p}B": v for p, v in {**_SI, **_IEC}.items()} | {"KB": 1000})
RATE_UNITS = _table(
    {f"{name}/s": scale for name, scale in BYTE_UNITS.items()} | {f"{p}bit/s": Fraction(v, 8) for p, v in _SI.items()}
)
FLOPS_UNITS = _table({f"{p}FLOP{s}": v for p, v in {**_SI, "E": 10**18}.items() for s in ("/s", "S")})
_MICRO = Fraction(1, 10**6)
SECOND_UNITS = _table(  # micro is written u, U+00B5 or U+03BC
    {"s": 1, "ms": Fraction(1, 10**3), "us": _MICRO, "\u00b5s": _MICRO, "\u03bcs": _MICRO}
    | {"ns": Fraction(1, 10**9), "min": 60, "h": 3600}
)
POWER_UNITS = _table({"W": 1, "kW": 1000})
TOKEN_UNITS = _table({f"{p}tok": _SI[p] for p in ("", "k", "M", "G", "T")})


def parse_exact(value: object, units: Mapping[str, Fraction], what: str) -> Fraction:
    """The exact SI value of text with one of `units` (name -> scale); `what` was expected, for errors."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError("", found=value, allowed=what)
    if isinstance(value, int) and abs(value) > 10**_MAX_EXPONENT:
        raise InputError("too large", allowed=what)
    text = repr(value) if isinstance(value, float) else str(value)
    match = _NUMBER.match(text) if len(text) < 100 else None
    if match is None:
        raise InputError("", found=value, allowed=what)
    number, unit = match.groups()
    exponent = re.search(r"[eE]([+-]?\d+)$", number)
    if number.strip("+-.")[:1].lower() in "ni" or (exponent and abs(int(exponent[1])) > _MAX_EXPONENT):
        raise InputError("not a finite number", found=value, allowed=what)
    exact = Fraction(number)
    if exact < 0:
        raise InputError("negative", found=value, allowed=what)
    if not unit:
        if exact == 0:
            return exact
        raise InputError("no unit", found=value, allowed=what)
    if unit not in units:
        guess = nearest(unit, units)
        near = [f"{number} {guess}"] if guess else None
        raise InputError(f"unknown unit {unit!r}", found=value, allowed=what, near=near)
    return exact * units[unit]


def parse_bytes(value: object) -> int:
    """Bytes from "2 TiB", "512 MB" or "16GB" (1e9-based), to the nearest whole byte. Raises InputError."""
    return round(parse_exact(value, BYTE_UNITS, "a size such as '2 TiB' or '512 MB'"))


def parse_rate(value: object) -> float:
    """Bytes per second from "50 GB/s", "1.5 TB/s" or "400 Gbit/s". Raises InputError."""
    return float(parse_exact(value, RATE_UNITS, "a rate such as '50 GB/s'"))


def parse_flops(value: object) -> float:
    """FLOP/s from "989 TFLOP/s" (also written "989 TFLOPS"). Raises InputError."""
    return float(parse_exact(value, FLOPS_UNITS, "a compute rate such as '989 TFLOP/s'"))


def parse_seconds(value: object) -> float:
    """Seconds from "3s", "50 ms", "3.5us", "2 min" or "1 h". Raises InputError."""
    return float(parse_exact(value, SECOND_UNITS, "a time such as '3 s' or '50 ms'"))


def parse_tokens(value: object) -> int:
    """Tokens from "512 tok" or "10Mtok" (SI), to the nearest whole token. Raises InputError."""
    return round(parse_exact(value, TOKEN_UNITS, "a token count such as '10Mtok' or '512 tok'"))


def _shortest(value: float, units: Mapping[str, Fraction], base: str) -> str:
    """The shortest text that parses back to exactly `value`; in the base unit at worst."""
    best = f"{value!r} {base}"
    for name, scale in units.items():
        number = float(Fraction(value) / scale)
        if number and not 1 <= number < 10_000:
            continue
        text = f"{int(number) if number.is_integer() else number!r} {name}"
        if len(text) < len(best) and float(parse_exact(text, units, "")) == value:
            best = text
    return best


def text_bytes(value: int) -> str:
    """Exact, shortest text that parses back to this byte count: 2**41 -> "2 TiB", 2 * 10**12 -> "2 TB"."""
    exact = [(name, int(scale)) for name, scale in BYTE_UNITS.items() if value % scale == 0]
    return min((f"{value // scale} {name}" for name, scale in exact), key=len)


def text_rate(value: float) -> str:
    """Exact text of a rate in bytes/s ("52.3 GB/s"); parses back to the identical float."""
    return _shortest(value, {n: s for n, s in RATE_UNITS.items() if "i" not in n}, "B/s")


def text_flops(value: float) -> str:
    """Exact text of a compute rate in FLOP/s ("814 TFLOP/s"); parses back to the identical float."""
    return _shortest(value, {n: s for n, s in FLOPS_UNITS.items() if n.endswith("/s")}, "FLOP/s")


def text_seconds(value: float) -> str:
    """Exact text of a time in seconds ("3.5 us"); parses back to the identical float."""
    return _shortest(value, {n: SECOND_UNITS[n] for n in ("s", "ms", "us", "ns")}, "s")


def text_tokens(value: int) -> str:
    """Exact text of a token count ("10 Mtok")."""
    exact = [(name, int(scale)) for name, scale in TOKEN_UNITS.items() if value % scale == 0]
    return min((f"{value // scale} {name}" for name, scale in exact), key=len)


def _human(value: float, scales: list[tuple[str, float]]) -> str:
    if not math.isfinite(value):
        return "n/a"
    name, scale = next(((n, s) for n, s in scales if abs(value) >= s * 0.9995), scales[-1])
    if value == 0:
        name, scale = scales[-1]
    number = value / scale
    digits = 0 if abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    text = f"{number:.{digits}f}"
    if float(text) == int(float(text)) and scale == 1 and value == int(value):
        text = f"{number:.0f}"
    return f"{text} {name}".rstrip()


def format_bytes(value: float) -> str:
    """A size for people, three digits, IEC units: 1610612736 -> "1.50 GiB"."""
    return _human(value, [*reversed([(f"{p}B", float(s)) for p, s in _IEC.items()]), ("B", 1.0)])


def format_rate(value: float) -> str:
    """A rate for people, three digits, SI units: 52.3e9 -> "52.3 GB/s"."""
    return _human(value, [(f"{p}B/s", float(s)) for p, s in reversed(_SI.items())])


def format_seconds(value: float) -> str:
    """A time for people, three digits: 0.0123 -> "12.3 ms"; minutes and hours from 120 s and 2 h on."""
    if abs(value) >= 7200:
        return _human(value / 3600, [("h", 1.0)])
    if abs(value) >= 120:
        return _human(value / 60, [("min", 1.0)])
    if value == 0:
        return "0 s"
    return _human(value, [("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)])


def format_count(value: float) -> str:
    """A count for people, three digits, SI prefixes: 1234567 -> "1.23 M"."""
    return _human(value, [(p, float(s)) for p, s in reversed(_SI.items())])


# Field types for pydantic models: text with a unit in, SI number inside, exact text out (parses back to it).
Bytes = Annotated[int, BeforeValidator(parse_bytes), PlainSerializer(text_bytes, return_type=str)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), PlainSerializer(text_seconds, return_type=str)]
Rate = Annotated[float, BeforeValidator(parse_rate), PlainSerializer(text_rate, return_type=str)]
Flops = Annotated[float, BeforeValidator(parse_flops), PlainSerializer(text_flops, return_type=str)]
Tokens = Annotated[int, BeforeValidator(parse_tokens), PlainSerializer(text_tokens, return_type=str)]
