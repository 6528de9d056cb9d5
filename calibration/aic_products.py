"""Points of matrix products, experts and all-reduces from aiconfigurator's tables.

In all-reduce tables `message_size` counts elements of two bytes: as bytes, the rates of NVLink machines would be half
of what NVLink does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from calibration.aic_source import MOST_TOKENS, Found, Memory, Source, one_kernel
from calibration.fitting import Array, Mask
from calibration.points import Points
from calibration.split import fitted_on, unseen_shapes
from calibration.tables import Table, check_flops
from hw_profiles.formats import WEIGHT_FORMATS

GEMM_DTYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bf16": ("bfloat16", "float16"),
        "fp8": ("fp8",),
        "fp8_block": ("fp8_block",),
        "nvfp4": ("nvfp4",),
        "int8": ("sq",),
        "int4": ("int4_wo",),
    }
)
DISTURBED = 1.25
"""What a sum may take longer than one of more bytes: repeated sums differ by less, and kernels change at sizes."""
INPUT_BYTES: Mapping[str, float] = MappingProxyType({"fp8": 1, "fp8_block": 1, "int8": 1, "nvfp4": 0.5})
"""Bytes of an activation as products of a weight format read it, 2 for others: as the simulator charges them."""
MOE_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "bf16": "bfloat16",
        "fp8": "fp8",
        "fp8_block": "fp8_block",
        "nvfp4": "nvfp4",
        "int4": "int4_wo",
        "mxfp4": "w4a16_mxfp4",
    }
)
FEWEST = 200
SMALL_WEIGHT, HOST_BOUND_S = 4096 * 4096, 40e-6
"""Values of a small weight, and the time that no kernel takes for a few rows of it on any GPU with HBM."""
ROTATED = 5
"""Weights that the benchmarks of products take in turn (aiconfigurator, collector/*/collect_gemm.py, repeat_n)."""
KEPT = 0.8
"""Share of L2 that weights stay in: on L40S and RTX PRO 6000 the rate falls from twice the HBM peak to three quarters
of it between 0.7 and 0.8. What is faster than the peak is left out whatever its size."""
PROOF = 0.01
"""Share of the products with small weights that, read faster than the HBM peak, prove a table warm."""
LITTLE_WEIGHT = 0.1
"""Share of its time in which a product could read its weight from HBM, up to which it does not matter if it did."""
SMALLEST, LARGEST, MOST_ROWS = 256, 65536, 16384
"""n and k of the matrix shapes, and m."""


def gemm_points(source: Source, memory: Memory) -> Iterator[Points]:
    """Matrix products by weight format, cold in L2. Rows of unseen shapes are held out whatever their m."""
    source.need("gemm", "gemm_perf.parquet", "gemm_dtype", "m", "n", "k")
    for dtype, names in GEMM_DTYPES.items():
        for found in source.all("gemm", "gemm_perf.parquet", "gemm_dtype", "m", "n", "k"):
            rows = found.table.equal(gemm_dtype=names)
            n, k, m = rows.numbers("n"), rows.numbers("k"), rows.numbers("m")
            rows = rows.where((np.minimum(n, k) >= SMALLEST) & (np.maximum(n, k) <= LARGEST) & (m <= MOST_ROWS))
            if len(rows) >= FEWEST and not _host_bound(rows):
                yield _gemm(source, found, one_kernel(rows, "m", "n", "k"), dtype, memory)
                break


def _gemm(source: Source, found: Found, rows: Table, dtype: str, memory: Memory) -> Points:
    m, n, k = (rows.numbers(name) for name in "mnk")
    seconds = rows.times("latency", 1e-3)
    check_flops(rows.path, f"{dtype} products", 2 * m * n * k, seconds, memory.most_flops(dtype))
    rows = rows.where(_cold(rows, dtype, memory))
    m, n, k = (rows.numbers(name) for name in "mnk")
    unseen, second = unseen_shapes(n, k), fitted_on(m)
    return Points(
        f"gemm_{dtype}",
        {"m": m, "n": n, "k": k, "bytes": gemm_bytes(dtype, m, n, k), "flops": 2 * m * n * k},
        rows.times("latency", 1e-3),
        fitted=~unseen & second,
        splits={"measured shapes": ~unseen & ~second, "unseen shapes": unseen},
        family=found.family(rows),
        own=found.own,
        what=f"{len(np.unique(np.stack([n, k]), axis=1).T)} shapes with n and k in {SMALLEST}..{LARGEST}",
        table=source.relative(found.table),
    )


def _cold(rows: Table, dtype: str, memory: Memory) -> Mask:
    """Rows whose weights come from HBM, and those whose time would hardly be longer if they did.

    `ROTATED` weights take turns: together they stay in L2 up to about its size, while in an engine every layer's
    weights are new. It shows where memory is slow (GDDR machines read small weights up to twice as fast as their memory
    can); where no table can tell, all rows are kept.
    """
    m, n, k = (rows.numbers(name) for name in "mnk")
    nbytes, seconds = gemm_bytes(dtype, m, n, k), rows.times("latency", 1e-3)
    weight = gemm_bytes(dtype, np.zeros_like(m), n, k)
    small, fast = ROTATED * weight < KEPT * memory.l2_bytes, nbytes > memory.peak * seconds
    if fast[small].sum() < PROOF * small.sum():
        return np.ones(len(rows), dtype=bool)
    little = weight <= LITTLE_WEIGHT * memory.peak * seconds
    return np.asarray(little | ~(small | fast), dtype=bool)


def _host_bound(rows: Table) -> bool:
    """True when small products take so long that the table holds launches from the host, not kernels.

    Engines launch decode steps as CUDA graphs, which such a table says nothing of (fp8_block of vLLM: 60 to 280 us for
    a product that reads 16 MB, whatever its rows; 12 us in TensorRT-LLM's table).
    """
    m, n, k = (rows.numbers(name) for name in "mnk")
    small = (m <= 16) & (n * k <= SMALL_WEIGHT)
    return bool(small.any()) and float(np.median(rows.times("latency", 1e-3)[small])) > HOST_BOUND_S


def moe_points(source: Source, memory: Memory) -> Iterator[Points]:
    """Fused experts by weight format, under balanced load and without expert parallelism."""
    found = source.find("moe", "moe_perf.parquet", "moe_dtype", "num_tokens", "topk")
    if found is None:
        return
    for dtype, name in MOE_DTYPES.items():
        rows = found.table.equal(moe_dtype=name, distribution="balanced", moe_ep_size=1)
        if len(rows):
            rows = rows.where(rows.numbers("num_tokens") <= MOST_TOKENS)
        if len(rows) < 64:
            continue
        rows = one_kernel(rows, "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size")
        tokens, top_k, experts = (rows.numbers(column) for column in ("num_tokens", "topk", "num_experts"))
        hidden, width = rows.numbers("hidden_size"), rows.numbers("inter_size") / rows.numbers("moe_tp_size")
        fitted = fitted_on(tokens, hidden, width)
        work, seconds = moe_work(dtype, tokens, top_k, experts, hidden, width), rows.times("latency", 1e-3)
        check_flops(rows.path, f"{dtype} experts", work["flops"], seconds, memory.most_flops(dtype))
        yield Points(
            f"moe_{dtype}",
            {"tokens": tokens, **work},
            seconds,
            fitted=fitted,
            splits={"held out": ~fitted},
            family=found.family(rows),
            own=found.own,
            what=f"{len(rows)} rows, balanced load, no expert parallelism",
            table=source.relative(found.table),
        )


def allreduce_points(source: Source) -> Iterator[Points]:
    """Sums over the GPUs of a node, as engines launch them: inside CUDA graphs."""
    found = source.find("comm", "custom_allreduce_perf.parquet", "num_gpus", "message_size")
    if found is None:
        return
    table = found.table
    if "backend" in table:
        graphs = np.array([str(name).endswith("graph") for name in table.text("backend")])
        table = table.where(graphs)
    for ranks in np.unique(table.numbers("num_gpus")):
        rows = table.where(table.numbers("num_gpus") == ranks)
        nbytes = 2 * rows.numbers("message_size")
        if len(rows) < 8:
            continue
        seconds, fitted = rows.times("latency", 1e-3), fitted_on(nbytes)
        disturbed = disturbed_sums(nbytes, seconds, fitted)
        left_out = f", {disturbed.sum()} left out (longer than a larger sum)" if disturbed.any() else ""
        yield Points(
            f"allreduce_{int(ranks)}",
            {"bytes": nbytes},
            seconds,
            fitted=fitted & ~disturbed,
            splits={"held out": ~fitted},
            family=found.family(rows),
            own=found.own,
            what=f"{int(ranks)} GPUs of a node, {len(rows)} sizes up to {nbytes.max() / 1e9:.2g} GB{left_out}",
            table=source.relative(found.table),
        )


def disturbed_sums(nbytes: Array, seconds: Array, fitted: Mask) -> Mask:
    """The fitted points that took over `DISTURBED` times as long as a fitted sum of more bytes: they say nothing.

    A sum of 4 KiB that took 15 us where 16 KiB take 7 (8 A100) was disturbed; as a point of a table of ratios it would
    spoil the sizes beside it. Held-out points are all kept: nothing is scored but as it was measured.
    """
    order = np.argsort(nbytes)
    larger = np.append(np.where(fitted, seconds, np.inf)[order][1:], np.inf)
    least = np.empty_like(seconds)
    least[order] = np.minimum.accumulate(larger[::-1])[::-1]
    return np.asarray(fitted & (seconds > DISTURBED * least), dtype=np.bool_)


def gemm_bytes(dtype: str, m: Array, n: Array, k: Array) -> Array:
    """Bytes that [m, k] x [k, n] moves: weights with their scales and inputs read, bf16 outputs written."""
    form = WEIGHT_FORMATS[dtype]
    shapes = {(int(a), int(b)) for a, b in zip(n, k, strict=True)}
    weights = {shape: form.matrix_bytes(*shape) for shape in shapes}
    weight = np.array([weights[int(a), int(b)] for a, b in zip(n, k, strict=True)], dtype=np.float64)
    return weight + m * (k * INPUT_BYTES.get(dtype, 2.0) + 2 * n)


def moe_work(dtype: str, tokens: Array, top_k: Array, experts: Array, hidden: Array, width: Array) -> dict[str, Array]:
    """Bytes and FLOP of the fused experts (gate, up, down of `width`) of a layer under balanced load.

    Read are the experts that any token selects, min(E, tokens x top_k) of them; every token's rows go in and out. m, n
    and k stand for rows per such expert, their number and hidden x width.
    """
    form = WEIGHT_FORMATS[dtype]
    touched = np.minimum(experts, tokens * top_k)
    shapes = {(int(h), int(w)) for h, w in zip(hidden, width, strict=True)}
    sizes = {(h, w): form.matrix_bytes(2 * w, h) + form.matrix_bytes(h, w) for h, w in shapes}
    one = np.array([sizes[int(h), int(w)] for h, w in zip(hidden, width, strict=True)], dtype=np.float64)
    rows, read = tokens * top_k, INPUT_BYTES.get(dtype, 2.0)
    moved = rows * ((hidden + width) * read + (2 * width + hidden) * 2)
    grid = {"m": rows / touched, "n": touched, "k": hidden * width}
    return {**grid, "bytes": touched * one + moved, "flops": 2 * rows * 3 * hidden * width}
