"""Profiles as YAML text: one line per value, tables of ratios as blocks of numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from calibration.fitting import Score
from calibration.kernel_fits import KernelFit, Value
from hw_profiles.residual import Residual
from hw_profiles.yaml_io import dump_yaml

UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        **dict.fromkeys(("t0", "floor", "per_seq", "alpha", "split"), ("us", 1e6)),
        **dict.fromkeys(("per_token", "per_context", "per_kv", "per_write", "per_split"), ("ns", 1e9)),
        **dict.fromkeys(("bandwidth", "beta"), ("GB/s", 1e-9)),
        "flops": ("TFLOP/s", 1e-12),
        "warm_bytes": ("B", 1.0),
        **dict.fromkeys(("p", "tile_rows", "warm", "split_tiles"), ("1", 1.0)),
    }
)
GIVEN = ("tile_rows", "warm_bytes", "split_tiles")
"""Values that are given to a fit."""
_WIDE = 118


def kernel_lines(fit: KernelFit, source: str) -> Iterable[str]:
    """The group of a fit, below `kernels:`."""
    yield f"  {fit.points.name}:"
    yield f"    family: {fit.points.family}"
    yield from (f"    {name}: {value_text(name, value, source)}" for name, value in fit.values.items())
    if fit.scores:
        heldout, what = worst_split(fit)
        numbers = ", ".join(f"{name}: {getattr(heldout, name):.4f}" for name in ("mape", "p90", "max", "bias"))
        yield f'    heldout: {{{numbers}, n: {heldout.n}, what: "{what}"}}'
    if fit.model.residual is not None:
        yield from residual_lines(fit.model.residual)


def value_text(name: str, value: Value, source: str) -> str:
    """`{v, unit, src, lo, hi}`."""
    unit, scale = UNITS[name]
    v, low, high = (_number(part * scale) for part in value)
    interval = "rel: 0" if low == high and name in GIVEN else f"lo: {low}, hi: {high}"
    quoted = '"1"' if unit == "1" else unit
    return f"{{v: {v}, unit: {quoted}, src: {source}, {interval}}}"


def residual_lines(table: Residual) -> Iterable[str]:
    """`residual: {axes, ratio}` of a group."""
    axes = ", ".join(f"{name}: [{', '.join(map(_number, grid))}]" for name, grid in table.axes)
    yield "    residual:"
    yield f"      axes: {{{axes}}}"
    yield "      ratio: >-"
    numbers = " ".join(f"{ratio:.3f}" for ratio in table.ratio)
    yield from textwrap.wrap(numbers, _WIDE - 8, initial_indent="        ", subsequent_indent="        ")


def source_lines(key: str, what: str, url: str, read: str) -> Iterable[str]:
    """An entry of `sources:`."""
    yield f"  {key}:"
    yield "    what: >-"
    yield from textwrap.wrap(what, _WIDE - 6, initial_indent="      ", subsequent_indent="      ")
    yield f"    url: {url}"
    yield f"    read: {read}"


def mapping_lines(node: Mapping[str, object]) -> list[str]:
    """A small mapping as YAML."""
    return dump_yaml(dict(node)).rstrip().split("\n")


def worst_split(fit: KernelFit) -> tuple[Score, str]:
    """The held-out split with the largest mean error, and what it is."""
    name = max(fit.scores, key=lambda split: fit.scores[split].mape)
    return fit.scores[name], "points between the fitted ones" if name == "held out" else name


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return (
        text
        if "e" not in text
        else f"{value:.1f}".removesuffix(".0")
        if abs(value) >= 1
        else f"{value:.12f}".rstrip("0")
    )
