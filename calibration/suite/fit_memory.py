"""Values of memory: HBM rate and latency, the L2 knee, launches, and what prefetching into L2 is worth."""

from __future__ import annotations

import numpy as np

from calibration.fit_l2 import fit_l2
from calibration.suite.parts import RESAMPLES, TARGETS, Part, fit_line, median_interval
from calibration.suite.reduce import Readings, columns
from hw_profiles.l2 import L2Model

LARGE = 2.0
"""Streams of so many times the L2 count for the HBM rate."""


def memory_part(readings: Readings, l2_bytes: int, peak: float, resamples: int = RESAMPLES) -> Part:
    """Everything about memory that was measured. peak: datasheet rate of HBM, 0 if unknown (bytes/s)."""
    part = Part()
    _streams(part, readings, l2_bytes, resamples)
    if peak:
        part.sources["device"] = "memory clock x 2 x bus width as the driver reports them"
        part.add("tiers.hbm.peak", peak, peak, peak, "device")
    _latencies(part, readings)
    _knee(part, readings, l2_bytes, resamples)
    _prefetch(part, readings)
    return part


def _streams(part: Part, readings: Readings, l2_bytes: int, resamples: int) -> None:
    for op in ("read", "write", "copy"):
        fitted = [r for r in readings.of("stream", heldout=False, op=op) if r.nbytes >= LARGE * l2_bytes]
        if len(fitted) < 3:
            continue
        nbytes, seconds = columns(fitted, "nbytes", "seconds")
        line = fit_line(nbytes, seconds, resamples)
        part.extras[f"stream_{op}"] = line.summary()
        if op == "read":
            part.sources["stream"] = (
                f"stream read of {nbytes.min() / 2**20:.0f}..{nbytes.max() / 2**20:.0f} MiB, cold in L2: alpha + "
                f"bytes/beta, {len(fitted)} sizes, soft-L1 on log residuals, interval by bootstrap over sizes"
            )
            part.add("tiers.hbm.read", line.beta, *line.beta_interval, "stream")
        held = [r for r in readings.of("stream", heldout=True, op=op) if r.nbytes >= LARGE * l2_bytes]
        if held:
            sizes, times = columns(held, "nbytes", "seconds")
            part.judge(f"stream {op}", line.seconds(sizes), times, TARGETS["stream"])


def _latencies(part: Part, readings: Readings) -> None:
    for where, path in (("hbm", "tiers.hbm.latency"), ("l2", "tiers.l2.latency"), ("host", "")):
        found = readings.of("chase", where=where)
        if not found:
            continue
        # `nbytes` is the number of steps of the walk
        each = [seconds / found[0].nbytes for seconds in found[0].passes]
        value, low, high = median_interval(each)
        part.extras[f"latency_{where}_ns"] = round(1e9 * value, 1)
        if path:
            part.sources["chase"] = (
                "pointer chase: one dependent load after another, links 256 bytes apart in random order"
            )
            part.add(path, value, low, high, "chase")


def _knee(part: Part, readings: Readings, l2_bytes: int, resamples: int) -> None:
    fitted = readings.of("l2_read", heldout=False)
    if len(fitted) < 6:
        return
    footprint, nbytes, seconds = columns(fitted, "bytes", "nbytes", "seconds")
    order = np.argsort(footprint)
    footprint, per_byte = footprint[order], (seconds / nbytes)[order]
    fit = fit_l2(footprint, per_byte, l2_bytes, resamples=resamples)
    part.sources["l2"] = (
        f"read rate of {len(fitted)} working sets of {footprint.min() / 2**20:.0f}..{footprint.max() / 2**20:.0f} MiB "
        f"read again and again: knee, soft-L1 on log residuals, MAPE {fit.score.mape:.1%}"
    )
    for name in ("read", "full_hit_bytes", "full_miss_bytes"):
        part.add(f"tiers.l2.{name}", fit.params[name], *fit.interval[name], "l2")
    part.add("tiers.l2.measured_bytes", l2_bytes, l2_bytes, l2_bytes, "l2")
    held = readings.of("l2_read", heldout=True)
    if held:
        x = fit.params
        model = L2Model(
            x["read"], x["hbm"], x["full_hit_bytes"], max(x["full_miss_bytes"], x["full_hit_bytes"] * 1.000001)
        )
        sizes, moved, times = columns(held, "bytes", "nbytes", "seconds")
        part.judge("L2 knee", model.seconds(moved, sizes), times, TARGETS["l2"])


def _prefetch(part: Part, readings: Readings) -> None:
    """Share of the time that a prefetch saves of what a hot L2 saves, by method, bytes and other traffic after it."""
    table = []
    for reading in readings.of("l2_prefetch"):
        method, size, other = (reading.key[name] for name in ("method", "bytes", "other"))
        if method in {"cold", "hot"}:
            continue
        cold, hot = (readings.of("l2_prefetch", method=name, bytes=size) for name in ("cold", "hot"))
        if cold and hot and cold[0].seconds > hot[0].seconds:
            share = (cold[0].seconds - reading.seconds) / (cold[0].seconds - hot[0].seconds)
            table.append({"method": method, "MiB": size >> 20, "other_MiB": other >> 20, "saved": round(share, 3)})
    if table:
        part.extras["l2_prefetch"] = table
    alone = readings.of("gemm_beside_prefetch", method="hot")
    slower = {r.key["method"]: r for r in readings.of("gemm_beside_prefetch") if r.key["method"] != "hot"}
    if alone and slower:
        part.extras["gemm_slowed_by_prefetch"] = {
            name: round(r.seconds / alone[0].seconds - 1, 4) for name, r in slower.items()
        }


def launch_part(readings: Readings) -> Part:
    """Launches: on a stream from Python, and inside a CUDA graph of a thousand."""
    part = Part()
    stream, graph = readings.of("launch", what="stream"), None
    for what in ("graph_1000", "graph_100", "graph_1"):
        graph = graph or next(iter(readings.of("launch", what=what)), None)
    if stream and graph is not None:
        part.sources["launch"] = (
            f"the smallest kernel of torch, 200 on a stream, and as {graph.key['what']} in a CUDA graph"
        )
        part.add("kernels.launch.stream", *median_interval(stream[0].passes), "launch")
        part.add("kernels.launch.graph", *median_interval(graph.passes), "launch")
    single = readings.of("launch", what="single")
    if single and graph is not None:
        # what every kernel that is timed alone has in it beyond its place among others
        part.extras["between_events_us"] = round(1e6 * (single[0].seconds - graph.seconds), 3)
    for what in ("sync", "event", "h2d_4", "d2h_4"):
        for reading in readings.of("launch", what=what):
            part.extras[f"{what}_us"] = round(1e6 * reading.seconds, 3)
    return part
