"""Reads the `kernels:` section of a profile: values, held-out scores, residual tables, names of the kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hw_profiles.errors import InputError
from hw_profiles.kernel_groups import EXAMPLES, REQUIRED_GROUPS, group_form
from hw_profiles.residual import Residual
from hw_profiles.schema import HELDOUT_KEYS, ProfileValue, check_keys, mapping, read_value

_EXTRA = ("family", "heldout", "residual")


@dataclass(frozen=True)
class HeldOut:
    """How well a fitted model predicts points not used in the fit (relative errors); `what` says which."""

    mape: float
    n: int
    what: str
    p90: float | None = None
    max: float | None = None
    bias: float | None = None


@dataclass(frozen=True)
class KernelNotes:
    """What a profile says of its kernels beside values, by group: scores, residual tables, which kernel it is."""

    heldout: Mapping[str, HeldOut]
    residual: Mapping[str, Residual]
    family: Mapping[str, str]


def kernel_values(section: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[ProfileValue]:
    """Values of every kernel group, those that every profile has first. InputError names the path."""
    for name in REQUIRED_GROUPS:
        mapping(section.get(name), f"kernels.{name}")
    for name in (*REQUIRED_GROUPS, *(name for name in section if name not in REQUIRED_GROUPS)):
        path = f"kernels.{name}"
        form = group_form(name)
        if form is None:
            raise InputError("unknown key", path="kernels", found=name, allowed=EXAMPLES, near=(*section, *EXAMPLES))
        group = mapping(section[name], path)
        check_keys(group, (*form.values, *_EXTRA), path)
        for key in form.required:
            if key not in group:
                raise InputError(f"missing value {key!r}", path=path)
        for key in group:
            if key in form.values:
                yield read_value(f"{path}.{key}", group[key], form.values[key], sources)


def kernel_notes(section: Mapping[str, Any]) -> KernelNotes:
    """What is said beside the values; call after `kernel_values`. InputError names the path."""
    heldout, residual, family = {}, {}, {}
    for name, group in section.items():
        path = f"kernels.{name}"
        if "heldout" in group:
            heldout[name] = _heldout(group["heldout"], f"{path}.heldout")
        if "residual" in group:
            form = group_form(name)
            residual[name] = _residual(group["residual"], form.axes if form else (), f"{path}.residual")
        if "family" in group:
            if not isinstance(group["family"], str) or not group["family"]:
                raise InputError("", path=f"{path}.family", found=group["family"], allowed="text")
            family[name] = group["family"]
    return KernelNotes(heldout, residual, family)


def _heldout(node: object, path: str) -> HeldOut:
    entry = mapping(node, path)
    check_keys(entry, HELDOUT_KEYS, path)
    for key in ("mape", "n", "what"):
        if key not in entry:
            raise InputError(f"missing key {key!r}", path=path)
    for key in entry:
        if key != "what" and not _is_number(entry[key]):
            raise InputError("", path=f"{path}.{key}", found=entry[key], allowed="a number")
    return HeldOut(**entry)


def _residual(node: object, layouts: tuple[tuple[str, ...], ...], path: str) -> Residual:
    """`{axes: {name: [ascending]}, ratio}`: lists within lists, or text of numbers; the last axis varies fastest."""
    if not layouts:
        raise InputError("this kernel has no residual table", path=path)
    entry = mapping(node, path)
    check_keys(entry, ("axes", "ratio"), path)
    axes = mapping(entry.get("axes"), f"{path}.axes")
    names = tuple(axes)
    if names not in layouts:
        allowed = "the axes " + " or ".join(", ".join(layout) for layout in layouts)
        raise InputError("", path=f"{path}.axes", found=", ".join(axes), allowed=allowed)
    grids = tuple((name, _grid(axes[name], f"{path}.axes.{name}")) for name in names)
    return Residual(grids, _ratios(entry.get("ratio"), [len(grid) for _, grid in grids], f"{path}.ratio"))


def _grid(node: object, path: str) -> tuple[float, ...]:
    fine = isinstance(node, list) and bool(node) and all(_is_number(x) and x > 0 for x in node)
    if not isinstance(node, list) or not fine or any(a >= b for a, b in pairwise(node)):
        raise InputError("", path=path, found=node, allowed="ascending numbers above 0")
    return tuple(float(x) for x in node)


def _ratios(node: object, sizes: list[int], path: str) -> tuple[float, ...]:
    count = math.prod(sizes)
    if isinstance(node, list):
        values = tuple(_nested(node, sizes, path))
    else:
        words = str(node).split() if isinstance(node, str | int | float) else []
        if len(words) != count:
            found = f"{len(words)} of them" if words else node
            raise InputError("", path=path, found=found, allowed=f"text of {count} numbers, one per grid point")
        try:
            values = tuple(map(float, words))
        except ValueError as error:
            raise InputError("", path=path, found=str(error).partition(": ")[2], allowed="numbers above 0") from None
    bad = next((value for value in values if not 0 < value < math.inf), None)
    if bad is not None:
        raise InputError("", path=path, found=bad, allowed="numbers above 0")
    return values


def _nested(node: object, sizes: list[int], path: str) -> Iterator[float]:
    if not sizes:
        if isinstance(node, bool) or not isinstance(node, int | float):
            raise InputError("", path=path, found=node, allowed="a number above 0")
        yield float(node)
        return
    if not isinstance(node, list) or len(node) != sizes[0]:
        found = f"{len(node)} items" if isinstance(node, list) else node
        raise InputError("", path=path, found=found, allowed=f"a list of {sizes[0]}, one per grid point")
    for i, item in enumerate(node):
        yield from _nested(item, sizes[1:], f"{path}[{i}]")


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
