"""A measured profile as YAML text: a line per value, provenance above, with it what profiles have no place for."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from calibration.profile_text import kernel_lines
from calibration.suite.fit import Fitted
from calibration.suite.parts import Entry, HeldOut
from calibration.suite.reduce import Reading, columns
from hw_profiles.schema import SCHEMA, quantity_of
from hw_profiles.yaml_io import dump_yaml

UNITS = {"B/s": ("GB/s", 1e-9), "FLOP/s": ("TFLOP/s", 1e-12), "s": ("us", 1e6), "B": ("B", 1.0), "1": ("1", 1.0)}
"""Unit that a value is written in, by the SI unit it is kept in."""
_WIDE = 116
_CONTEXT = "memory that the driver and the context took before anything was measured; an engine's graphs come on top"


def profile_text(fitted: Fitted, name: str, raw_sha256: str) -> str:
    """The profile. Raw samples are named by file and SHA-256."""
    env = fitted.samples.env
    device = env["device"]
    sources = {"device": "what the driver reports of the device", "context": _CONTEXT, **fitted.part.sources}
    lines = [
        f"schema: {SCHEMA}",
        f"name: {name}",
        "kind: measured",
        f"vendor: {_vendor(device)}",
        f"target: {{backend: {_backend(device)}, arch: {device['arch'] or 'none'!s}}}",
        f"created: {env['time'][:10]}",
        "calibration:",
        *_indented(_calibration(fitted, raw_sha256)),
        "",
        "# Every `src` below is a key here; intervals are 90 %.",
        "sources:",
    ]
    for key, what in sources.items():
        lines += [f"  {key}:", "    what: >-"]
        lines += textwrap.wrap(what, _WIDE - 6, initial_indent="      ", subsequent_indent="      ")
    lines += ["", "capacity:"]
    lines += [f"  {path.rpartition('.')[2]}: {value}" for path, value in _capacity(device)]
    for section in ("tiers", "links", "caps", "interference", "kernels"):
        lines += _section(section, fitted)
    for fit in fitted.part.kernels:
        lines += kernel_lines(fit, f"fit_{fit.points.name}")
    lines += ["", "validity:", *_indented(_validity(fitted)), ""]
    return "\n".join(lines)


def raw_sha256(data: bytes) -> str:
    """Of the file of raw samples."""
    return hashlib.sha256(data).hexdigest()


def _vendor(device: Mapping[str, Any]) -> str:
    return {"cuda": "nvidia", "hip": "amd"}.get(device["kind"], "cpu")


def _backend(device: Mapping[str, Any]) -> str:
    return {"cuda": "cuda", "hip": "hip"}.get(device["kind"], "cpu")


def _calibration(fitted: Fitted, sha256: str) -> dict[str, Any]:
    env, samples = fitted.samples.env, fitted.samples
    return {
        "raw": samples.path.name,
        "raw_sha256": sha256,
        "suite": env["schema"],
        "runs": samples.runs,
        "complete": samples.complete,
        "points": len(fitted.readings.all),
        "refused_points": fitted.readings.refused,
        "device": env["device"],
        "software": env["software"],
        "host": env["host"],
        "settings": env["settings"],
        "drift": round(fitted.drift, 4),
        "spread": round(fitted.readings.spread, 4),
        "heldout": [_held(held) for held in fitted.part.heldout],
        "results": fitted.part.extras,
    }


def _held(held: HeldOut) -> dict[str, Any]:
    score = held.score
    numbers = {name: round(getattr(score, name), 4) for name in ("mape", "p90", "max", "bias")}
    return {"what": held.what, **numbers, "n": score.n, "target": held.target}


def _capacity(device: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    taken = max(device["memory_bytes"] - device["free_bytes"], 2**20) if device["kind"] != "cpu" else 2**20
    for name, value, source in (
        ("hbm_bytes", device["memory_bytes"], "device"),
        ("l2_bytes", device["l2_bytes"], "device"),
        ("sms", device["sms"], "device"),
        ("reserved_bytes", taken, "context"),
    ):
        entry = Entry(f"capacity.{name}", value, value, value, source)
        yield entry.path, value_text(entry)


def _section(section: str, fitted: Fitted) -> list[str]:
    """Entries of a section, nested by their dotted paths."""
    entries = sorted((e for e in fitted.part.entries if e.path.startswith(f"{section}.")), key=lambda e: _order(e.path))
    if not entries:
        return []
    lines, open_groups = ["", f"{section}:"], [section]
    for entry in entries:
        *groups, name = entry.path.split(".")
        common = 0
        while common < min(len(groups), len(open_groups)) and groups[common] == open_groups[common]:
            common += 1
        lines += [f"{'  ' * depth}{groups[depth]}:" for depth in range(common, len(groups))]
        open_groups = groups
        lines.append(f"{'  ' * len(groups)}{name}: {value_text(entry)}")
    return lines


def _order(path: str) -> tuple[str, str]:
    """Values of a group before the groups in it."""
    group, _, name = path.rpartition(".")
    return group, name


def value_text(entry: Entry) -> str:
    """`{v, unit, src, lo, hi}` of a value."""
    quantity = quantity_of(entry.path)
    if quantity is None:
        raise ValueError(f"profiles have no value {entry.path}")
    unit, scale = UNITS[quantity.si_unit]
    if quantity.si_unit == "s" and entry.value < 1e-7:
        unit, scale = "ns", 1e9
    numbers = (entry.value, entry.low, entry.high)
    v, low, high = (_number(x * scale, whole=quantity.whole) for x in numbers)
    quoted = '"1"' if unit == "1" else unit
    interval = "rel: 0" if entry.low == entry.high else f"lo: {low}, hi: {high}"
    return f"{{v: {v}, unit: {quoted}, src: {entry.source}, {interval}}}"


def _number(value: float, *, whole: bool) -> str:
    if whole:
        return str(round(value))
    return f"{value:.12f}".rstrip("0").rstrip(".") if abs(value) < 1e-4 else f"{value:.7g}"


def _validity(fitted: Fitted) -> dict[str, Any]:
    decode = fitted.readings.of("decode", heldout=False, format="bf16")
    prefill = fitted.readings.of("prefill", heldout=False, impl="triton")
    boxes = {
        "batch": _span(decode, "batch"),
        "seq": _span(decode, "seq"),
        "prefill": _span(prefill, "tokens"),
        "prefix": _span(prefill, "prefix"),
    }
    return boxes | {"note": "what was measured; outside the box the efficiency of its border holds"}


def _span(readings: list[Reading], name: str) -> list[int]:
    (values,) = columns(readings, name)
    return [int(values.min()), int(values.max())]


def _indented(node: Mapping[str, Any]) -> list[str]:
    return [f"  {line}" for line in dump_yaml(dict(node)).rstrip().split("\n")]
