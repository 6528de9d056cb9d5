"""Values of the links: single copies, many blocks by each method, both directions together, one copy behind another."""

from __future__ import annotations

from calibration.fit_copies import fit_copies
from calibration.suite.parts import RESAMPLES, TARGETS, Part, fit_line, median_interval
from calibration.suite.plan_copies import COPY_PROGRAMS
from calibration.suite.reduce import Reading, Readings, columns

DIRECTIONS, METHODS = ("h2d", "d2h"), ("loop", "batch", "kernel")
SMALL = 64 * 2**10
LARGE = 8 * 2**20


def links_part(readings: Readings, resamples: int = RESAMPLES) -> Part:
    """Every link value that was measured."""
    part = Part()
    for direction in DIRECTIONS:
        _single(part, readings, direction, resamples)
        _pageable(part, readings, direction)
        for method in METHODS:
            _blocks(part, readings, direction, method, resamples)
    _both_ways(part, readings)
    _behind(part, readings)
    _programs(part, readings)
    return part


def _single(part: Part, readings: Readings, direction: str, resamples: int) -> None:
    fitted = readings.of("copy", heldout=False, direction=direction, memory="pinned")
    if len(fitted) < 3:
        return
    nbytes, seconds = columns(fitted, "bytes", "seconds")
    line = fit_line(nbytes, seconds, resamples)
    source = f"copy_{direction}"
    part.sources[source] = (
        f"single copies of pinned memory, {nbytes.min() / 2**10:.0f} KiB..{nbytes.max() / 2**20:.0f} MiB: alpha "
        f"+ bytes/beta, {len(fitted)} sizes, soft-L1 on log residuals, interval by bootstrap over sizes"
    )
    part.add(f"links.pcie_{direction}.alpha", line.alpha, *line.alpha_interval, source)
    part.add(f"links.pcie_{direction}.beta", line.beta, *line.beta_interval, source)
    for name, small in (("copy", False), ("copy_small", True)):
        held = readings.of("copy", heldout=True, direction=direction, memory="pinned")
        held = [reading for reading in held if (reading.key["bytes"] < SMALL) == small]
        if held:
            sizes, times = columns(held, "bytes", "seconds")
            label = f"copy {direction} {'below' if small else 'from'} 64 KiB"
            part.judge(label, line.seconds(sizes), times, TARGETS[name])


def _pageable(part: Part, readings: Readings, direction: str) -> None:
    found = [r for r in readings.of("copy", direction=direction, memory="pageable") if r.key["bytes"] >= LARGE]
    rates = [reading.key["bytes"] / seconds for reading in found for seconds in reading.passes]
    if rates:
        part.sources["pageable"] = "copies of 16 MiB and more of memory that is not pinned"
        part.add(f"links.pcie_{direction}.pageable", *median_interval(rates), "pageable")


def _blocks(part: Part, readings: Readings, direction: str, method: str, resamples: int) -> None:
    """Time per block from the most blocks of a size whose copying, and not their submission, was timed."""
    best: dict[int, Reading] = {}
    for reading in readings.of("blocks", heldout=False, direction=direction, method=method):
        known = best.get(reading.key["bytes"])
        if reading.extra.get("queued", 1.0) and (known is None or reading.key["blocks"] > known.key["blocks"]):
            best[reading.key["bytes"]] = reading
    if len(best) < 5:
        return
    chosen = [best[size] for size in sorted(best)]
    block, count, seconds = columns(chosen, "bytes", "blocks", "seconds")
    rate = block * count / seconds
    fastest = max(1.02 * float(rate.max()), 1.05 * (_rate(part, direction) or 0.0))
    fit = fit_copies(block, rate, fastest=fastest, cliff=method == "batch", resamples=resamples)
    source, group = f"{method}_{direction}", f"links.pcie_{direction}.{method}"
    part.sources[source] = (
        f"{int(count.max())} and fewer scattered blocks of {block.min() / 2**10:.0f} KiB..{block.max() / 2**20:.0f} "
        f"MiB by {method}: two segments of alpha + bytes/beta, MAPE {fit.mape:.1%}"
    )
    for name, (low, high) in fit.interval.items():
        part.add(f"{group}.{name}", getattr(fit.model, name), low, high, source)
    if method == "batch":
        each = [r.host_s / r.key["blocks"] for r in chosen if r.key["blocks"] >= 256]
        if each:
            part.add(f"{group}.submit", *median_interval(each), source)
    if method == "kernel":
        part.add(f"{group}.sms", COPY_PROGRAMS, COPY_PROGRAMS, COPY_PROGRAMS, source)
    held = readings.of("blocks", heldout=True, direction=direction, method=method)
    held = [reading for reading in held if reading.extra.get("queued", 1.0)]
    if held:
        block, count, seconds = columns(held, "bytes", "blocks", "seconds")
        predicted = fit.model.seconds(block * count, count)
        part.judge(f"blocks {direction} {method}", predicted, seconds, TARGETS["blocks"])


def _both_ways(part: Part, readings: Readings) -> None:
    """What both directions move together while both are busy."""
    part_names = {("loop", "loop"): "pcie_joint", ("kernel", "kernel"): "pcie_joint_kernel"}
    table = {}
    for reading in readings.of("both_ways"):
        methods = (reading.key["h2d"], reading.key["d2h"])
        each, times = reading.nbytes / 2, (reading.extra["h2d_s"], reading.extra["d2h_s"])
        first, last = min(times), max(times)
        slower = "h2d" if times[0] >= times[1] else "d2h"
        alone = _rate(part, slower)
        # the slower one finishes alone, at the rate of one direction; at least all bytes over all the time
        joint = max((2 * each - (alone or each / last) * (last - first)) / first, 2 * each / last)
        table["+".join(methods)] = round(1e-9 * joint, 2)
        if methods in part_names:
            part.sources["both_ways"] = (
                "256 MiB each way at once, blocks of 2 MiB; interval: the two passes, at least 3 %"
            )
            width = max(reading.spread, 0.03)
            path = f"caps.{part_names[methods]}"
            part.add(path, joint, joint * (1 - width), joint * (1 + width), "both_ways")
    if table:
        part.extras["both_ways_GBps"] = table


def _rate(part: Part, direction: str) -> float | None:
    path = f"links.pcie_{direction}.beta"
    return next((entry.value for entry in part.entries if entry.path == path), None)


def _behind(part: Part, readings: Readings) -> None:
    """Head-of-line blocking: how long a small copy takes behind 64 MiB that are cut into chunks."""
    table: dict[str, dict[str, float]] = {}
    for reading in readings.of("behind"):
        chunk = f"{reading.key['chunk'] >> 20} MiB"
        table.setdefault(reading.key["direction"], {})[chunk] = round(1e6 * reading.seconds, 1)
    if table:
        part.extras["behind_64MiB_us"] = table


def _programs(part: Part, readings: Readings) -> None:
    table: dict[str, dict[str, float]] = {}
    for reading in readings.of("programs"):
        rate = round(1e-9 * reading.nbytes / reading.seconds, 2)
        table.setdefault(reading.key["direction"], {})[str(reading.key["programs"])] = rate
    if table:
        part.extras["copy_kernel_GBps_by_programs"] = table
    host = [(r.key, 1e-9 * r.nbytes / r.seconds) for r in readings.of("from_host")]
    if host:
        part.extras["attention_from_host_GBps"] = {f"{k['batch']}x{k['seq']}": round(rate, 2) for k, rate in host}
