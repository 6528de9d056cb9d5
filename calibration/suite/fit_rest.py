"""What kernels cost beside copies, and results that profiles have no place for: elementwise, quantisation, the host."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from calibration.suite.parts import RESAMPLES, TARGETS, Part, fit_line, median_interval
from calibration.suite.reduce import Reading, Readings, columns

HBM_BOUND = ("stream_read", "stream_copy", "decode")
"""Kernels whose slowdown beside copies is that of HBM."""


def overlap_part(readings: Readings, hbm_rate: float) -> Part:
    """The interference matrix, and its factors: slowdown = kappa x rate of the copies / HBM rate (bytes/s)."""
    part = Part()
    matrix: dict[str, dict[str, dict[str, float]]] = {}
    factors: dict[str, list[float]] = {}
    for reading in readings.of("beside"):
        kernel, traffic = reading.key["kernel"], reading.key["traffic"]
        alone = readings.of("beside", kernel=kernel, traffic="none")
        if traffic == "none" or not alone:
            continue
        moved = _traffic_rate(reading)
        slower = [a / b - 1 for a, b in zip(reading.passes, alone[0].passes, strict=False)]
        matrix.setdefault(kernel, {})[traffic] = {
            "slowdown": round(reading.seconds / alone[0].seconds - 1, 4),
            "GBps": round(1e-9 * moved, 2),
            "covered": reading.extra.get("covered", 1.0),
        }
        direction = {"h2d": "h2d", "d2h": "d2h", "h2d_kernel": "h2d_kernel", "d2h_kernel": "d2h_kernel"}.get(traffic)
        if direction and kernel in HBM_BOUND and moved > 0 and reading.extra.get("covered", 1.0) >= 0.5:
            factors.setdefault(direction, []).extend(max(0.0, s) * hbm_rate / moved for s in slower)
    if matrix:
        part.extras["interference"] = matrix
        part.sources["interference"] = (
            "kernels bound by HBM (stream read, stream copy, decode attention) beside copies of 2 MiB blocks: slowdown "
            "x HBM rate / rate of the copies; median, interval by bootstrap over kernels and passes"
        )
    for direction, values in factors.items():
        part.add(f"interference.{direction}", *median_interval(values), "interference")
    return part


def _traffic_rate(reading: Reading) -> float:
    total = 0.0
    for number in range(2):
        nbytes = reading.extra.get(f"traffic_{number}_bytes", 0.0)
        if nbytes:
            total += nbytes / reading.extra[f"traffic_{number}_s"]
    return total


def rest_part(readings: Readings, resamples: int = RESAMPLES) -> Part:
    """Lines of alpha + bytes/beta by operation, and rates of the host."""
    part = Part()
    _lines(part, readings.of("elementwise"), "elementwise", lambda r: r.key["op"], resamples)
    _lines(part, readings.of("quantise"), "quantise", lambda r: f"{r.key['op']}_{r.key['format']}", resamples)
    _lines(part, readings.of("digest"), "digest", lambda r: r.key["what"], resamples)
    _lines(part, readings.of("page_copy"), "page_copy", lambda r: "all", resamples)
    threads = {str(r.key["threads"]): round(1e-9 * r.nbytes / r.seconds, 2) for r in readings.of("host_memcpy")}
    if threads:
        part.extras["host_memcpy_GBps"] = threads
    for reading in readings.of("pin"):
        part.extras["pin_GBps"] = round(1e-9 * reading.nbytes / reading.seconds, 2)
    skew = [(r.extra["cv"], r.seconds, r.key["batch"]) for r in readings.of("decode_skew")]
    even = {batch: seconds for cv, seconds, batch in skew if cv == 0}
    slope = [(seconds / even[batch] - 1) / cv for cv, seconds, batch in skew if cv > 0 and batch in even]
    if slope:
        part.extras["skew_per_cv"] = round(statistics.median(slope), 4)
    layers = {f"{r.key['batch']} x {r.key['seq']}": round(1e6 * r.seconds, 2) for r in readings.of("layer")}
    if layers:
        part.extras["layer_us"] = layers
    nvme = [(r.key, 1e-9 * r.nbytes / r.seconds) for r in readings.of("nvme")]
    if nvme:
        part.extras["nvme_GBps"] = {f"{k['op']} {k['bytes'] >> 10} KiB x{k['depth']}": round(g, 3) for k, g in nvme}
    return part


def _lines(part: Part, readings: list[Reading], bench: str, of: Callable[[Reading], str], resamples: int) -> None:
    for name in dict.fromkeys(map(of, readings)):
        rows = [reading for reading in readings if of(reading) == name]
        fitted = [reading for reading in rows if not reading.heldout]
        if len(fitted) < 3:
            continue
        nbytes, seconds = columns(fitted, "nbytes", "seconds")
        line = fit_line(nbytes, seconds, resamples)
        label = bench if name == "all" else f"{bench}_{name}"
        part.extras[label] = line.summary()
        held = [reading for reading in rows if reading.heldout]
        if held:
            sizes, times = columns(held, "nbytes", "seconds")
            part.judge(label, line.seconds(sizes), times, TARGETS["other"])
