"""Trials of memory: streams, the L2 knee, latencies, prefetch into L2, launches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from calibration.suite import ops, plan_cpu
from calibration.suite.lab import Lab
from calibration.suite.plan_memory import CHASE_STEPS, L2_SECONDS
from calibration.suite.reduce import LARGE
from calibration.suite.timing import WAIT_STEPS, Custom, Kernel, Patience, Reading, Trial

MIB = 2**20
CHASE_BYTES = {"hbm": 512 * MIB, "host": 64 * MIB}
TINY_LAUNCHES = 200


def stream(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: op, bytes. Bytes of a copy count twice: read and written."""
    count = key["bytes"] // 4
    x = lab.pool("stream x", count, torch.float32)
    y = lab.pool("stream y", count, torch.float32) if key["op"] == "copy" else x
    nbytes = key["bytes"] * (2 if key["op"] == "copy" else 1)
    floor = nbytes / lab.facts.peak if lab.facts.peak and nbytes > LARGE * lab.facts.l2_bytes else 0.0
    return Kernel(stream_launch(lab, key["op"], x, y), nbytes=nbytes, floor_s=floor)


def stream_launch(lab: Lab, op: str, x: torch.Tensor, y: torch.Tensor) -> Any:
    """A function that reads x, writes x, or copies x to y.

    On the CPU "read" is SiLU times gate: what lies between products there is bound by such loops, not by memory.
    """
    if lab.cpu:
        wide = x.view(lab.dtype)[: x.numel() * 2 // (3 * plan_cpu.FFN) * (3 * plan_cpu.FFN)].view(-1, 3 * plan_cpu.FFN)
        gate, out = wide[:, : 2 * plan_cpu.FFN].contiguous(), torch.empty_like(wide[:, : plan_cpu.FFN])
        read = {"read": lambda _: ops.silu_gate(gate, out)}
        return (read | {"write": lambda _: x.fill_(1.5), "copy": lambda _: y.copy_(x)})[op]
    from calibration.kernels import streams

    sums = torch.zeros(lab.programs, device=lab.device)
    return {
        "read": lambda _: streams.read(x, sums),
        "write": lambda _: streams.write(x, 1.5, lab.programs),
        "copy": lambda _: streams.copy(x, y, lab.programs),
    }[op]


def l2_read(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: bytes, read again and again in one launch."""
    from calibration.kernels import streams

    x = lab.pool("stream x", key["bytes"] // 4, torch.float32)
    repeats = max(4, math.ceil(L2_SECONDS * 5e12 / key["bytes"]))
    sums = torch.zeros(lab.programs, device=lab.device)
    return Kernel(lambda _: streams.read(x, sums, repeats), nbytes=float(repeats * key["bytes"]))


def chase(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: where (l2, hbm, host). Seconds of all steps; `nbytes` is their number."""
    from calibration.kernels import chase as kernel

    where, steps = key["where"], CHASE_STEPS[key["where"]]
    words = kernel.chain(CHASE_BYTES.get(where, lab.facts.l2_bytes // 6), lab.device, pinned=where == "host")
    end = torch.zeros(1, dtype=torch.int64, device=lab.device)
    return Kernel(lambda _: kernel.follow(words, end, steps), nbytes=float(steps))


def l2_prefetch(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: method (cold, hot, lines, pages), bytes, other: seconds to read `bytes` after so much other traffic."""
    from calibration.kernels import streams

    data = lab.pool("stream x", key["bytes"] // 4, torch.float32)
    other = lab.pool("stream y", key["other"] // 4, torch.float32) if key["other"] else None
    sums = torch.zeros(lab.programs, device=lab.device)
    prefetch = prefetcher(data, key["method"])

    def before(_: int) -> None:
        if key["method"] == "hot":
            streams.read(data, sums)
        prefetch()
        if other is not None:
            streams.read(other, sums)

    return Kernel(lambda _: streams.read(data, sums), nbytes=float(key["bytes"]), before=before)


def prefetcher(data: torch.Tensor, method: str) -> Any:
    """A function that prefetches all of `data` by a method; nothing for others than lines and pages."""
    from calibration.kernels import prefetch_l2

    raw = data.view(torch.uint8)
    if method == "lines":
        done = torch.zeros(raw.numel() // (prefetch_l2.LINES * prefetch_l2.LINE_BYTES) + 1, dtype=torch.int32)
        done = done.to(data.device)
        return lambda: prefetch_l2.lines(raw, raw.numel(), done)
    if method == "pages":
        page = 64 * 1024
        numbers = torch.arange(raw.numel() // page, dtype=torch.int32, device=data.device)
        done = torch.zeros_like(numbers)
        return lambda: prefetch_l2.pages(raw, numbers, page, done)
    return lambda: None


def gemm_beside_prefetch(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: method (hot: nothing), bytes: a matrix product while a prefetch runs on another stream."""
    x, weight = lab.random(2048, 8192), lab.random(8192, 8192)
    y = torch.empty(2048, 8192, dtype=lab.dtype, device=lab.device)
    prefetch = prefetcher(lab.pool("stream x", key["bytes"] // 4, torch.float32), key["method"])

    def once(steps: int) -> Reading:
        start, end = lab.event(), lab.event()
        lab.wait(steps)
        started = time.perf_counter()
        start.record()
        with torch.cuda.stream(lab.side):
            lab.side.wait_event(start)
            prefetch()
        torch.mm(x, weight.t(), out=y)
        end.record()
        host, late = time.perf_counter() - started, lab.has_passed(start)
        lab.synchronize()
        return Reading(1e-3 * start.elapsed_time(end), host, late=late)

    patience = Patience(WAIT_STEPS)
    return Custom(lambda _: patience.sample(once), flops=2.0 * 2048 * 8192 * 8192)


def launch(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: what. Seconds per launch, synchronisation, event or copy of 4 bytes."""
    what, tiny = key["what"], torch.zeros(1, device=lab.device)
    if lab.cpu or what == "stream":
        return Kernel(lambda _: tiny.add_(1), repeats=TINY_LAUNCHES, wait=False)
    if what == "single":
        return Kernel(lambda _: tiny.add_(1))
    if what.startswith("graph"):
        count = int(what.rpartition("_")[2])
        graph = graph_of(lab, lambda: tiny.add_(1), count)
        return Custom(lambda _: _per_launch(lab, graph, count))
    if what == "sync":
        return Custom(lambda _: _host_time(torch.cuda.synchronize))
    if what == "event":
        event = lab.event()
        return Custom(lambda _: _host_time(event.record))
    host = torch.zeros(1, pin_memory=True)
    source, target = (host, tiny) if what == "h2d_4" else (tiny, host)
    return Kernel(lambda _: target.copy_(source, non_blocking=True), repeats=100, nbytes=4.0, wait=False)


@dataclass(frozen=True)
class Graph:
    """A CUDA graph and the work that it repeats, which keeps the tensors alive whose addresses are in the graph."""

    graph: Any
    work: Callable[[], object]

    def replay(self) -> None:
        """Submit it."""
        self.graph.replay()


def graph_of(lab: Lab, work: Callable[[], object], count: int) -> Graph:
    """A CUDA graph of `count` times `work`, warmed up on a side stream as capture wants it."""
    lab.side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(lab.side):
        work()
    torch.cuda.current_stream().wait_stream(lab.side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            work()
    return Graph(graph, work)


def _per_launch(lab: Lab, graph: Any, count: int) -> Reading:
    reading = Kernel(lambda _: graph.replay()).sample(lab, 0, cold=False)
    return Reading(reading.device_s / count, reading.host_s / count)


def _host_time(call: Any) -> Reading:
    started = time.perf_counter()
    for _ in range(100):
        call()
    seconds = (time.perf_counter() - started) / 100
    return Reading(seconds, seconds)
