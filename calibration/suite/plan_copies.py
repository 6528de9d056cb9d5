"""Points of copies between host and GPU: single ones, many blocks by each method, both ways, one behind another."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator

from calibration.suite.facts import Facts
from calibration.suite.point import Costs, Key, Point, point

KIB, MIB, GIB = 2**10, 2**20, 2**30
DIRECTIONS, METHODS = ("h2d", "d2h"), ("loop", "batch", "kernel")
SINGLE = tuple(4 * KIB * 4**i for i in range(10))
SINGLE_HELDOUT = (24 * KIB, 384 * KIB, 6 * MIB, 96 * MIB)
PAGEABLE = (64 * KIB, MIB, 16 * MIB, 256 * MIB)
BLOCKS = (4 * KIB, 8 * KIB, 16 * KIB, 24 * KIB, 28 * KIB, 32 * KIB, 64 * KIB, 256 * KIB, MIB, 2 * MIB)
"""Block sizes: dense around the size where batched copies toward the GPU become fast."""
COUNTS, MOST_BYTES = (16, 256, 4096), 512 * MIB
HELDOUT_SHARE = 10
CHUNKS = (MIB, 4 * MIB, 16 * MIB, 64 * MIB)
COPY_PROGRAMS = 12
"""Programs of the copy kernel where they are not varied: as many as vLLM's (vllm-project/vllm pull request 42212)."""
PROGRAMS = (2, 4, 8, 12, 16, 32, 64, 128)
KERNELS = ("stream_read", "stream_copy", "decode", "gemm")
TRAFFIC = ("none", "h2d", "d2h", "both", "h2d_kernel", "d2h_kernel", "d2d")
OVERLAP_S, GATE_S = 15e-3, 10e-3
"""How long a kernel is repeated beside copies, and how long everything waits for a common start."""


def single_points(costs: Costs, largest: int) -> Iterator[Point]:
    """One copy from or to pinned memory, and memory that is not."""
    for direction, size in itertools.product(DIRECTIONS, (*SINGLE, *SINGLE_HELDOUT)):
        if size <= largest:
            held, seconds = size in SINGLE_HELDOUT, costs.per_copy["loop"] + size / costs.link
            key: Key = {"direction": direction, "memory": "pinned", "bytes": size}
            yield point(costs, "copy", seconds, key, samples=8, heldout=held, priority=0, cold=False)
    for direction, size in itertools.product(DIRECTIONS, PAGEABLE):
        if size <= largest:
            key = {"direction": direction, "memory": "pageable", "bytes": size}
            yield point(costs, "copy", 2e-5 + size / costs.memcpy, key, samples=5, priority=1, cold=False)


def block_points(costs: Costs, methods: tuple[str, ...], most_bytes: int) -> Iterator[Point]:
    """Many blocks scattered over pools on both sides. Every tenth point, by name, is held out."""
    for direction, method, size, count in itertools.product(DIRECTIONS, methods, BLOCKS, COUNTS):
        if size * count > most_bytes:
            continue
        key: Key = {"direction": direction, "method": method, "bytes": size, "blocks": count}
        held = zlib.crc32(repr(sorted(key.items())).encode()) % HELDOUT_SHARE == 0
        seconds = max(size * count / costs.link, count * costs.per_copy[method]) + 2e-5
        priority = 1 if count == 256 else 2
        yield point(costs, "blocks", seconds, key, heldout=held, samples=8, warmups=1, priority=priority, cold=False)


def shared_points(costs: Costs) -> Iterator[Point]:
    """Both directions at once; a small copy behind a long one; copy kernels by size; attention from host memory."""
    for h2d, d2h in itertools.product(("loop", "kernel"), repeat=2):
        seconds = 1.3 * 512 * MIB / costs.link
        yield point(costs, "both_ways", seconds, {"h2d": h2d, "d2h": d2h}, samples=8, warmups=1, priority=0, cold=False)
    for direction, chunk in itertools.product(DIRECTIONS, CHUNKS):
        key: Key = {"direction": direction, "chunk": chunk}
        yield point(costs, "behind", 2 * 64 * MIB / costs.link, key, samples=8, priority=1, cold=False)
    for direction, programs in itertools.product(DIRECTIONS, PROGRAMS):
        key = {"direction": direction, "programs": programs}
        seconds = 64 * MIB / costs.link * max(1.0, 8 / programs)
        yield point(costs, "programs", seconds, key, samples=5, warmups=1, priority=1, cold=False)
    for batch, seq in ((1, 2048), (4, 2048), (1, 8192), (16, 2048)):
        seconds = batch * seq * 4096 / (0.8 * costs.link)
        yield point(costs, "from_host", seconds, {"batch": batch, "seq": seq}, samples=5, priority=2, cold=False)


def overlap_points(costs: Costs) -> Iterator[Point]:
    """Kernels alone and beside each kind of copies."""
    for kernel, traffic in itertools.product(KERNELS, TRAFFIC):
        key: Key = {"kernel": kernel, "traffic": traffic}
        priority = 0 if kernel in {"stream_read", "decode"} and traffic != "d2d" else 1
        yield point(costs, "beside", GATE_S + 1.4 * OVERLAP_S, key, samples=8, warmups=1, priority=priority, cold=False)


def host_points(costs: Costs, facts: Facts, nvme: bool) -> Iterator[Point]:
    """Copies within host memory by threads, pinning, and a disk if the user names a path on it."""
    size = min(512 * MIB, facts.host_bytes // 16)
    for threads in (1, 2, 4, 8):
        seconds = size / (costs.memcpy * min(threads, 4))
        yield point(
            costs,
            "host_memcpy",
            seconds,
            {"threads": threads, "bytes": size},
            samples=5,
            warmups=1,
            priority=2,
            cold=False,
        )
    yield point(costs, "pin", size / 2.5e9, {"bytes": size}, samples=2, warmups=0, priority=2, cold=False)
    if nvme:
        for op, size, depth in itertools.product(("read", "write"), (128 * KIB, MIB, 4 * MIB), (1, 4, 16, 64)):
            seconds = max(64 * MIB / 5e9, 64 * MIB / size / depth * 1e-4)
            key: Key = {"op": op, "bytes": size, "depth": depth}
            yield point(costs, "nvme", seconds, key, samples=3, warmups=1, cold=False)
