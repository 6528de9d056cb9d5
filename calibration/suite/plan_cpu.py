"""A small suite of torch on the CPU: no profile of anything one would buy, but the whole way from samples to a profile.

Tests use it, and the mini engine's CPU mode is compared with the simulator under its profile.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from calibration.suite.point import Costs, Key, Point
from calibration.suite.point import point as any_point

KIB, MIB = 2**10, 2**20
OVERHEAD: Mapping[str, float] = {"import torch, pools": 4.0, "anchors at start, middle and end": 0.5}
HEADS, KV_HEADS, HEAD_DIM, PAGE = 4, 1, 128, 16
HIDDEN, FFN = 256, 512
"""The model that the mini engine runs on the CPU."""
ROWS, ROWS_HELDOUT = (1, 2, 4, 8, 16, 32, 64, 128, 256), (3, 12, 48, 160)
SHAPES = ((768, 256), (256, 512), (1024, 256), (2048, 256))
BATCHES, CONTEXTS, DECODE_HELDOUT = (1, 2, 4, 8, 16), (32, 128, 512, 1024), ((3, 300), (6, 200), (12, 700))
NEW, PREFIXES, PREFILL_HELDOUT = (16, 32, 64, 128, 256), (0, 128, 512), ((48, 64), (100, 300), (200, 0))


def point(costs: Costs, bench: str, seconds: float, key: Key, *, heldout: bool = False, cold: bool = True) -> Point:
    """A point with fewer samples than on a GPU: the CPU's clock counts this thread alone."""
    return any_point(costs, bench, seconds, key, heldout=heldout, cold=cold, samples=9, warmups=2)


def points(costs: Costs) -> Iterator[Point]:
    """Everything a profile must have."""
    for op, size in itertools.product(("read", "write", "copy"), (MIB, 5 * MIB, 8 * MIB, 16 * MIB)):
        yield point(costs, "stream", costs.moved(size), {"op": op, "bytes": size})
    yield point(costs, "stream", costs.moved(12 * MIB), {"op": "read", "bytes": 12 * MIB}, heldout=True)
    for what in ("stream", "graph_1"):
        yield point(costs, "launch", 1e-3, {"what": what}, cold=False)
    for (n, k), m in itertools.product(SHAPES, (*ROWS, *ROWS_HELDOUT)):
        seconds = costs.product(2 * n * k, 2.0 * m * n * k)
        key: Key = {"dtype": "bf16", "impl": "torch", "m": m, "n": n, "k": k}
        yield point(costs, "gemm", seconds, key, heldout=m in ROWS_HELDOUT)
    for batch, seq in (*itertools.product(BATCHES, CONTEXTS), *DECODE_HELDOUT):
        seconds = batch * (5e-5 + seq * KV_HEADS * HEAD_DIM * 4 / costs.hbm)
        key = {"format": "bf16", "heads": HEADS, "kv_heads": KV_HEADS, "page": PAGE, "batch": batch, "seq": seq}
        yield point(costs, "decode", seconds, key, heldout=(batch, seq) in DECODE_HELDOUT)
    for tokens, prefix in (*itertools.product(NEW, PREFIXES), *PREFILL_HELDOUT):
        flops = 4.0 * HEADS * HEAD_DIM * tokens * (prefix + tokens)
        key = {"impl": "triton", "heads": HEADS, "kv_heads": KV_HEADS, "tokens": tokens, "prefix": prefix}
        held = (tokens, prefix) in PREFILL_HELDOUT
        yield point(costs, "prefill", 1e-4 + flops / costs.attention, key, heldout=held)
    for batch in (1, 4, 16):
        yield point(costs, "layer", 1e-3 * (1 + batch), {"batch": batch, "seq": 256})
    for direction, size in itertools.product(("h2d", "d2h"), (4 * KIB, 32 * KIB, 256 * KIB, 2 * MIB, 16 * MIB)):
        key = {"direction": direction, "memory": "pinned", "bytes": size}
        yield point(costs, "copy", 5e-6 + size / costs.link, key, heldout=size == 256 * KIB)
