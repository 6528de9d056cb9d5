"""Numbers and names as people read them: one spelling for tiles, tables, captions and hover labels."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from hw_profiles.units import format_bytes, format_rate, format_seconds

NO_VALUE = "–"
NBSP = "\u00a0"  # keeps a number and its unit on one line

TIER_LABELS = {"hbm": "HBM", "dram": "DRAM", "cxl": "CXL", "c2c": "C2C", "ssd": "SSD", "remote": "remote"}
LINK_LABELS = {
    "pcie_h2d": "PCIe, host to GPU",
    "pcie_d2h": "PCIe, GPU to host",
    "pcie_joint": "PCIe, both directions",
    "host_root": "host root complex",
    "dram": "host DRAM",
    "kv_link": "KV, prefill to decode",
    "kv_out": "KV link, out of instances",
    "kv_in": "KV link, into instances",
    "cxl_read": "CXL, to GPU",
    "cxl_write": "CXL, from GPU",
    "c2c_read": "NVLink-C2C, to GPU",
    "c2c_write": "NVLink-C2C, from GPU",
    "ssd_read": "SSD, read",
    "ssd_write": "SSD, write",
    "remote_read": "remote, read",
    "remote_write": "remote, write",
    "cxl_joint": "CXL, both directions",
    "c2c_joint": "NVLink-C2C, both directions",
    "ssd_joint": "SSD, reads and writes",
    "remote_joint": "remote, reads and writes",
}
METRIC_LABELS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E", "queue": "queue time"}
KIND_LABELS = {
    "datasheet": "estimated from datasheets",
    "public_fit": "fitted to public measurements",
    "measured": "measured by kvsim calibrate",
}


def tier_label(name: str) -> str:
    """`hbm` -> `HBM`; a tier of the user's own keeps its name."""
    return TIER_LABELS.get(name, name)


def part_label(summary: Mapping[str, Any], part: str) -> str:
    """A part of TTFT or E2E as the summary's definitions call it; loads with the name of their tier."""
    fields = summary.get("definitions", {}).get("attribution", {})
    if part.startswith("load_"):
        return f"loading from {tier_label(part.removeprefix('load_'))}"
    return str(fields.get(part, {}).get("label") or part)


def link_label(name: str) -> str:
    """`pcie_h2d` -> `PCIe, host to GPU`; an unknown link keeps its name."""
    return LINK_LABELS.get(name, name)


def slo_label(key: str) -> str:
    """`ttft_p99` -> `TTFT p99`."""
    metric, _, statistic = key.partition("_")
    return f"{METRIC_LABELS.get(metric, metric)} {statistic}".strip()


def is_number(value: Any) -> TypeGuard[float]:
    """True for a finite int or float (bool is not a number here)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 4) -> str:
    """Significant digits with thousands separators: 12345.6 -> `12,350`, 0.012345 -> `0.01235`."""
    if not is_number(value):
        return NO_VALUE
    if value == 0:
        return "0"
    if isinstance(value, int):
        return f"{value:,}"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4:
        return f"{value:.{digits - 1}g}"
    decimals = max(0, digits - 1 - magnitude)
    return _plain(f"{round(value, digits - 1 - magnitude):,.{decimals}f}")


def seconds(value: Any) -> str:
    """Seconds as the console shows them, less closing zeros: 0.0123 -> `12.3 ms`, 2 -> `2 s`."""
    return _trim(format_seconds(value)).replace("us", "µs") if is_number(value) else NO_VALUE


def binary_bytes(value: Any) -> str:
    """Bytes in IEC units: 85899345920 -> `80 GiB`."""
    return _trim(format_bytes(value)) if is_number(value) else NO_VALUE


def rate(value: Any) -> str:
    """Bytes per second with a decimal unit: `83.4 GB/s`."""
    return _trim(format_rate(value)) if is_number(value) else NO_VALUE


def _trim(text: str) -> str:
    figure, _, unit = text.partition(" ")
    return f"{_plain(figure)}{NBSP}{unit}"


def _plain(figure: str) -> str:
    """`12.50` -> `12.5`, `99.00` -> `99`."""
    return figure.rstrip("0").rstrip(".") if "." in figure else figure


def binary_unit(size: float) -> tuple[float, str]:
    """Divisor and name of the IEC unit that shows `size` bytes with one to four digits before the point."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(size) >= 1024**power:
            return float(1024**power), unit
    return 1.0, "B"


def percent(ratio: Any) -> str:
    """A ratio as per cent with enough digits near 0 and 100: 0.42 -> `42 %`, 0.9987 -> `99.87 %`."""
    if not is_number(ratio):
        return NO_VALUE
    value = 100.0 * ratio
    edge = min(abs(value), abs(100.0 - value))
    if 0 < edge < 0.005:  # never round a few to none, or all but a few to all
        return f"{'<' if value < 50 else '>'}{NBSP}{0.01 if value < 50 else 99.99 if value < 100 else 100}{NBSP}%"
    decimals = 0 if edge == 0 or edge >= 10 else 1 if edge >= 1 else 2
    return f"{_plain(f'{value:.{decimals}f}')}{NBSP}%"


def metric_value(value: Any, unit: str) -> tuple[str, str]:
    """Value and unit of a metric row; bytes and ratios are turned into a readable size and per cent."""
    if not is_number(value):
        return (NO_VALUE if value is None or isinstance(value, float) else str(value)), unit
    if unit in {"B", "bytes"}:
        text, _, name = binary_bytes(value).partition(NBSP)
        return text, name
    if unit in {"ratio", "fraction"}:
        return percent(value).removesuffix(f"{NBSP}%"), "%"
    return number(value), unit
