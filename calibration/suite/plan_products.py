"""Points of the rest of a layer: matrix products, elementwise kernels, a layer as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from calibration.suite.facts import Facts
from calibration.suite.point import Costs, Key, Point, point

ROWS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
SHAPES = (
    *((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)),  # Llama-3.1-8B: qkv, output, gate and up, down
    *((10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672)),  # Llama-3.1-70B
    (128256, 4096),  # the head of Llama-3.1-8B
)
"""(n, k) of y [m, n] = x [m, k] W [n, k]^T."""
UNSEEN, UNSEEN_ROWS = ((5120, 5120), (7168, 2048)), (3, 24, 100, 700, 3000)
FP8_ROWS = (1, 16, 64, 256, 1024, 4096)
MOST_FLOPS = 8e12
ELEMENTWISE, TOKENS = ("rms_norm", "silu_gate", "rotary", "kv_write", "sample"), (1, 64, 1024, 8192)
TOKENS_HELDOUT = (300,)
LAYER_BATCHES = (1, 16, 64, 256)
# bytes that an operation moves per token of a model with 4,096 hidden numbers (bf16), for the prediction
_BYTES = {"rms_norm": 16384, "silu_gate": 86016, "rotary": 16384, "kv_write": 4096, "sample": 513024}


def gemm_points(costs: Costs, facts: Facts) -> Iterator[Point]:
    """bf16 by the library (cuBLAS), our Triton kernel at a few sizes beside it, fp8 where the GPU has it."""

    def one(m: int, n: int, k: int, *, priority: int = 1, dtype: str = "bf16", impl: str = "torch") -> Iterator[Point]:
        width, speed = (1, 1.6) if dtype == "fp8" else (2, 1.0)
        flops = 2.0 * m * n * k
        if flops > MOST_FLOPS:
            return
        seconds = costs.product(width * (n * k + m * k) + 2 * m * n, flops / speed)
        key: Key = {"dtype": dtype, "impl": impl, "m": m, "n": n, "k": k}
        yield point(costs, "gemm", seconds, key, samples=10, heldout=(n, k) in UNSEEN, priority=priority)

    for number, ((n, k), m) in enumerate(itertools.product(SHAPES, ROWS)):
        yield from one(m, n, k, priority=0 if number % 2 == 0 else 2)
    for (n, k), m in itertools.product(UNSEEN, UNSEEN_ROWS):
        yield from one(m, n, k)
    if facts.fp8:
        for (n, k), m in itertools.product(SHAPES[:4], FP8_ROWS):
            yield from one(m, n, k, dtype="fp8")
        for m in (24, 700):
            yield from one(m, *UNSEEN[0], dtype="fp8")
    for m in (16, 512, 4096):
        yield from one(m, 4096, 4096, impl="triton", priority=3)


def elementwise_points(costs: Costs) -> Iterator[Point]:
    """Kernels of a layer between its products; sampling of a token."""
    for op, tokens in itertools.product(ELEMENTWISE, (*TOKENS, *TOKENS_HELDOUT)):
        if op == "sample" and tokens > 1024:
            continue
        held = tokens in TOKENS_HELDOUT
        seconds = costs.moved(tokens * _BYTES[op])
        yield point(costs, "elementwise", seconds, {"op": op, "tokens": tokens}, heldout=held)


def layer_points(costs: Costs) -> Iterator[Point]:
    """A decode layer of Llama-3.1-8B in a CUDA graph, context 2,048: what its parts do not explain is glue."""
    for batch in LAYER_BATCHES:
        seconds = 4 * costs.launch + (436e6 + batch * 2048 * 4096) / costs.hbm
        yield point(costs, "layer", seconds, {"batch": batch, "seq": 2048}, priority=2)
