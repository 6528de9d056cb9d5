"""Form of a machine profile (`kvsim-hw/1`): which values there are and how one value is read.

A value is `{v, unit, src}` with, where known, its 90 % interval as `{rel}` (relative half-width) or
`{lo, hi}` (same unit). `unit` is always given, "1" for a pure number; `src` names an entry of `sources`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from hw_profiles import units
from hw_profiles.errors import InputError
from hw_profiles.kernel_groups import group_form
from hw_profiles.quantity import COMPUTE, COUNT, FACTOR, NUMBER_UNITS, POWER, RATE, SIZE, TIME, Quantity

SCHEMA = "kvsim-hw/1"
KINDS = ("datasheet", "public_fit", "measured")
REQUIRED_LINKS = ("pcie_h2d", "pcie_d2h")
HELDOUT_KEYS = ("mape", "p90", "max", "bias", "n", "what")
_LINK_NAME = re.compile(r"[a-z][a-z0-9_]*")


PEAK_DTYPES = ("bf16", "fp8", "int8", "int4", "fp4")
"""Types of arithmetic that a datasheet gives a peak for; one not given is not done in hardware."""

# Every value a profile must have besides kernels and links, by group.
REQUIRED: Mapping[str, Mapping[str, Quantity]] = MappingProxyType(
    {
        "capacity": {"hbm_bytes": SIZE, "l2_bytes": SIZE, "sms": COUNT, "reserved_bytes": SIZE},
        "tiers.hbm": {"read": RATE},
    }
)
# Values it may have besides.
OPTIONAL: Mapping[str, Mapping[str, Quantity]] = MappingProxyType(
    {
        "capacity": {"power_limit": POWER},  # of the board, as it comes
        "tiers.hbm": {"peak": RATE, "latency": TIME},
        "peaks": dict.fromkeys(PEAK_DTYPES, COMPUTE),  # of the datasheet, dense
        "caps": {"pcie_joint": RATE, "pcie_joint_kernel": RATE},
        "tiers.l2": {
            "read": RATE,
            "full_hit_bytes": SIZE,
            "full_miss_bytes": SIZE,
            "latency": TIME,
            "measured_bytes": SIZE,  # L2 of the GPU on which the footprints were measured
        },
        # HBM time that a copied byte takes from kernels, by direction, as a multiple of its own
        "interference": {"h2d": FACTOR, "d2h": FACTOR, "h2d_kernel": FACTOR, "d2h_kernel": FACTOR},
    }
)
LINK: Mapping[str, Quantity] = MappingProxyType({"alpha": TIME, "beta": RATE})
"""What every link has: one line through the copies of all sizes, by one copy engine copy per block."""
LINK_OPTIONAL: Mapping[str, Quantity] = MappingProxyType({"pageable": RATE})
COPY_METHODS = ("loop", "batch", "kernel")
"""How blocks are copied over a link: a copy engine copy per block (cudaMemcpyAsync), all in one call
(cudaMemcpyBatchAsync), a kernel on some SMs. Each is a group of a link, such as `links.pcie_h2d.kernel`."""
SMALL = ("cut", "small_alpha", "small_beta")
COPY: Mapping[str, Quantity] = MappingProxyType(
    {
        **LINK,
        "cut": SIZE,
        "small_alpha": TIME,
        "small_beta": RATE,
        "submit": TIME,
        "sms": COUNT,
    }
)
CAPS = ("pcie_joint",)
"""Bandwidths that the directions of one GPU's link share. With copy kernels `pcie_joint_kernel` takes its place."""
TOP_KEYS = (
    *("schema", "name", "kind", "vendor", "target", "created", "calibration", "sources"),
    *("capacity", "peaks", "tiers", "links", "caps", "interference", "kernels", "validity"),
)


@dataclass(frozen=True)
class ProfileValue:
    """One number with its provenance. value_si, lo and hi are in `si_unit`; `text` is as in the file."""

    path: str
    value_si: float
    si_unit: str
    unit: str
    text: str
    src_key: str
    source_text: str
    rel: float | None
    lo: float | None = None
    hi: float | None = None


def quantity_of(path: str) -> Quantity | None:
    """The quantity a dotted value path holds, or None if profiles have no such value."""
    group, _, key = path.rpartition(".")
    if group.startswith("links."):
        name, _, method = group[6:].partition(".")
        if not _LINK_NAME.fullmatch(name):
            return None
        if method:
            return COPY.get(key) if method in COPY_METHODS else None
        return LINK.get(key) or LINK_OPTIONAL.get(key)
    if group.startswith("kernels."):
        form = group_form(group[8:])
        return form.values.get(key) if form else None
    return REQUIRED.get(group, {}).get(key) or OPTIONAL.get(group, {}).get(key)


def mapping(node: object, path: str | None) -> Mapping[str, Any]:
    """`node` if it is a mapping, else InputError."""
    if not isinstance(node, Mapping):
        raise InputError("", path=path, found=node, allowed="a mapping")
    return node


def check_keys(node: Mapping[str, Any], allowed: Iterable[str], path: str | None) -> None:
    """Raise InputError (with the nearest name) for a key that is not allowed."""
    names = tuple(allowed)
    for key in node:
        if key not in names:
            raise InputError("unknown key", path=path, found=key, allowed=names, near=names)


def link_name(name: str) -> str:
    """`name` if links may be called so, else InputError."""
    if not _LINK_NAME.fullmatch(name):
        raise InputError("", path="links", found=name, allowed="a link name of a-z, 0-9 and _")
    return name


def read_value(path: str, node: object, quantity: Quantity, sources: Mapping[str, str]) -> ProfileValue:
    """Read one `{v, unit, src, rel | lo + hi}`. Raises InputError naming the path."""
    entry = mapping(node, path)
    check_keys(entry, ("v", "unit", "src", "rel", "lo", "hi"), path)
    for key in ("v", "unit", "src"):
        if entry.get(key) is None:
            raise InputError(f"missing key {key!r}", path=path, allowed="{v, unit, src} with rel or lo and hi")
    src, unit = str(entry["src"]), str(entry["unit"])
    if src not in sources:
        raise InputError("unknown source", path=f"{path}.src", found=src, allowed=tuple(sources), near=sources)
    if unit not in quantity.units:
        names = tuple(quantity.units)
        raise InputError("unknown unit", path=f"{path}.unit", found=unit, allowed=names, near=names)
    value = _scaled(entry["v"], unit, quantity, f"{path}.v")
    lo, hi, rel = _interval(path, entry, unit, quantity, value)
    text = f"{entry['v']} {unit}" if unit != "1" else f"{entry['v']}"
    return ProfileValue(path, value, quantity.si_unit, unit, text, src, sources[src], rel, lo, hi)


OVERRIDDEN = "override"
"""Source key of values that were set from outside."""


def overridden(path: str, value: float | str, source: str, quantity: Quantity | None = None) -> ProfileValue:
    """A value set from outside: text with a unit, or a number in SI units. Its uncertainty is unknown.

    The path is one of a profile, unless `quantity` says what the value is.
    """
    quantity = quantity or quantity_of(path)
    if quantity is None:
        raise InputError("profiles have no such value", found=path)
    if isinstance(value, str):
        example = f"a number with a unit such as '1 {quantity.si_unit}'"
        try:
            number = float(units.parse_exact(value, quantity.units, example))
        except InputError as error:
            raise error.at(path=path) from None
        text = value.strip()
    else:
        number, text = value, f"{value!r} {quantity.si_unit}"
    si = _scaled(number, quantity.si_unit, quantity, path)
    return ProfileValue(path, si, quantity.si_unit, quantity.si_unit, text, OVERRIDDEN, source, None)


def _scaled(number: object, unit: str, quantity: Quantity, path: str) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise InputError("", path=path, found=number, allowed="a finite number")
    value = float(Fraction(repr(number)) * quantity.units[unit])
    if value < quantity.least or (quantity.above_zero and value <= 0):
        bound = "above 0" if quantity.above_zero else f"of at least {quantity.least:g}"
        raise InputError("", path=path, found=number, allowed=f"a number {bound}")
    if value > quantity.most:
        raise InputError("", path=path, found=number, allowed=f"a number of at most {quantity.most:g}")
    return float(round(value)) if quantity.whole else value


def _interval(
    path: str, entry: Mapping[str, Any], unit: str, quantity: Quantity, value: float
) -> tuple[float | None, float | None, float | None]:
    """(lo, hi, rel) of the 90 % interval, all None when the file gives none."""
    if "rel" in entry:
        rel = _scaled(entry["rel"], "1", Quantity(NUMBER_UNITS, "1"), f"{path}.rel")
        if "lo" in entry or "hi" in entry:
            raise InputError("both rel and lo/hi given", path=path)
        return value * (1 - rel), value * (1 + rel), rel
    if "lo" not in entry and "hi" not in entry:
        return None, None, None
    if "lo" not in entry or "hi" not in entry:
        raise InputError("lo and hi go together", path=path)
    loose = Quantity(quantity.units, quantity.si_unit)
    lo, hi = (_scaled(entry[key], unit, loose, f"{path}.{key}") for key in ("lo", "hi"))
    if not lo <= value <= hi:
        raise InputError(f"v is outside lo..hi ({entry['lo']}..{entry['hi']})", path=path, found=entry["v"])
    return lo, hi, max(hi - value, value - lo) / value if value else None
