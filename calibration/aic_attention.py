"""Points of attention from aiconfigurator's tables.

In decode tables `step` is the past length. They repeat one buffer, so KV that fits in L2 is read warm, which it is not
in an engine whose weights pass through L2 in between. Kept are rows with at least twice the L2 of KV, and those with so
little that reading it all from HBM would take at most `LITTLE` of their time; the others are told apart and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from calibration.aic_source import KV_DTYPES, MOST_TOKENS, Found, Memory, Source, one_kernel
from calibration.fitting import Array
from calibration.points import Points, prefill_splits
from calibration.split import fitted_on
from calibration.tables import Table, check_flops, check_rate
from hw_profiles.kernel_groups import BASE_KV_HEADS, decode_name, prefill_name

GROUPS, HEAD_DIMS = (1, 4, 8, 16), (64, 128)
PREFILL_HEADS, PREFILL_GROUPS = (4, 8, 16, 32, 64), (1, 2, 4, 8, 16)
"""Query heads of a rank, and query heads per KV head, of prefill rows."""
LATENT, LATENT_HEADS, LATENT_FLOPS = 576, (16, 32, 64, 128), 2 * (128 + 64 + 128)
"""MLA of DeepSeek-V3: values per cached token, query heads of a rank, FLOP per head and pair in prefill."""
PLANNED = ("flashinfer_fiprefill", " flashinfer")
"""Kernels whose planner splits contexts among blocks while there are few tiles: FlashInfer's own."""
MIN_TOKENS = 128
"""Shorter prefill rows are bound by launches; shorter decode contexts by work per sequence."""
LITTLE = 0.03
FEWEST = 16
"""Cold rows that a decode kernel must have; a prefill kernel four times as many, over several head counts."""


def decode_points(source: Source, memory: Memory) -> Iterator[Points]:
    """Decode attention by KV format, head width and query heads per KV head."""
    found = source.need("attention", "generation_attention_perf.parquet", "batch_size", "step", "num_heads")
    table = found.table.equal(window_size=0)
    heads, kv_heads = table.numbers("num_heads"), table.numbers("num_key_value_heads")
    for dtype, names in KV_DTYPES.items():
        for head_dim in HEAD_DIMS:
            for group in GROUPS:
                rows = table.where(heads == group * kv_heads).equal(kv_cache_dtype=names, head_dim=head_dim)
                what = f"{group} query heads per KV head, heads of {head_dim}, {dtype} KV"
                values = 2 * head_dim * (2 if dtype == "bf16" else 1)
                yield from _decode(source, found, rows, memory, decode_name(dtype, group, head_dim), values, what)


def mla_decode_points(source: Source, memory: Memory) -> Iterator[Points]:
    """Decode attention over the latent of MLA, by KV format and query heads of a rank."""
    found = source.find("mla", "generation_mla_perf.parquet", "batch_size", "step", "num_heads")
    if found is None:
        return
    for dtype, names in KV_DTYPES.items():
        for heads in LATENT_HEADS:
            rows = found.table.equal(kv_cache_dtype=names, num_heads=heads)
            what = f"MLA of DeepSeek-V3, {heads} query heads, {dtype} KV"
            nbytes = LATENT * (2 if dtype == "bf16" else 1)
            yield from _decode(source, found, rows, memory, f"mla_decode_{dtype}_h{heads}", nbytes, what)


def _decode(
    source: Source, found: Found, rows: Table, memory: Memory, name: str, per_token: int, what: str
) -> Iterator[Points]:
    """Cold rows, if there are enough; per_token: bytes that a token leaves in a layer's cache, per KV head."""
    if not len(rows):
        return
    latent = "num_key_value_heads" not in rows
    axes = ("batch_size", "step", "num_heads" if latent else "num_key_value_heads")
    rows = one_kernel(rows, *axes)
    batch, seq = rows.numbers("batch_size"), rows.numbers("step") + 1
    kv_heads = np.full_like(batch, BASE_KV_HEADS) if latent else rows.numbers("num_key_value_heads")
    nbytes = batch * seq * per_token * (1 if latent else kv_heads)
    seconds = rows.times("latency", 1e-3)
    cold = nbytes >= 2 * memory.l2_bytes
    check_rate(rows.path, nbytes[cold], seconds[cold], memory.peak)
    if cold.sum() < FEWEST:
        return
    fitted = fitted_on(batch, seq, kv_heads)
    little = ~cold & (nbytes <= LITTLE * seconds * memory.peak)
    points = Points(
        name,
        {"batch": batch, "kv_heads": kv_heads, "seq": seq, "bytes": nbytes},
        seconds,
        fitted=fitted,
        splits={"cold": ~fitted & cold, "little KV": ~fitted & little},
        family=found.family(rows),
        own=found.own,
        what=f"{what}, {int(cold.sum())} rows with at least twice the L2 of KV and {int(little.sum())} with little",
        table=source.relative(rows),
        floor=_floor(seconds[(batch <= 8) & (seq <= MIN_TOKENS)]),
        l2_bytes=memory.l2_bytes,
    ).take(cold | little)
    if (points.fitted & points.cold).sum() >= FEWEST // 2:
        yield points


def _floor(seconds: Array) -> tuple[float, float, float]:
    low, middle, high = np.quantile(seconds, [0.05, 0.5, 0.95]) if len(seconds) else (0.0, 0.0, 0.0)
    return float(middle), float(low), float(high)


def prefill_points(source: Source, memory: Memory, sms: int) -> Iterator[Points]:
    """Prefill attention by KV format and head width, over several counts of heads and of heads per KV head."""
    found = source.need("attention", "context_attention_perf.parquet", "batch_size", "isl", "num_heads")
    table = found.table.equal(window_size=0, num_heads=PREFILL_HEADS)
    heads, kv_heads = table.numbers("num_heads"), table.numbers("num_key_value_heads")
    table = table.where(np.isin(heads / kv_heads, PREFILL_GROUPS))
    for dtype, names in KV_DTYPES.items():
        for head_dim in HEAD_DIMS:
            rows = table.equal(kv_cache_dtype=names, head_dim=head_dim)
            what = f"heads of {head_dim}, {dtype} KV, 1 to 16 query heads per KV head"
            for points in _prefill(
                source, found, rows, prefill_name(dtype, head_dim), 4 * head_dim, what, memory.most_flops(dtype)
            ):
                tiles = sms if points.family.endswith(PLANNED) else 0
                yield replace(points, l2_bytes=memory.l2_bytes, split_tiles=tiles)


def mla_prefill_points(source: Source, memory: Memory) -> Iterator[Points]:
    """Prefill attention of MLA, its latents expanded into heads."""
    found = source.find("mla", "context_mla_perf.parquet", "batch_size", "isl", "num_heads")
    if found is None:
        return
    for dtype, names in KV_DTYPES.items():
        rows = found.table.equal(kv_cache_dtype=names, num_heads=LATENT_HEADS)
        what = f"MLA of DeepSeek-V3, {dtype} KV"
        most = memory.most_flops(dtype)
        yield from _prefill(source, found, rows, f"mla_prefill_{dtype}", LATENT_FLOPS, what, most)


def _prefill(
    source: Source, found: Found, rows: Table, name: str, per_pair: int, what: str, peak: float | None
) -> Iterator[Points]:
    """per_pair: FLOP per query head and pair of a new and a visible token; peak: FLOP/s that no row can exceed."""
    length = rows.numbers("isl")
    rows = rows.where((length >= MIN_TOKENS) & (length * rows.numbers("batch_size") <= MOST_TOKENS))
    if len(rows) < 4 * FEWEST:
        return
    rows = _main_kernel(rows)
    latent = "num_key_value_heads" not in rows
    rows = one_kernel(rows, "batch_size", "isl", "num_heads", *(() if latent else ("num_key_value_heads",)))
    batch, length, heads = (rows.numbers(column) for column in ("batch_size", "isl", "num_heads"))
    kv_heads = heads if latent else rows.numbers("num_key_value_heads")
    prefix = rows.numbers("step") if "step" in rows else np.zeros_like(length)
    fitted = fitted_on(batch, length, heads, heads / kv_heads)
    flops, seconds = batch * heads * per_pair * (length * prefix + length * length / 2), rows.times("latency", 1e-3)
    check_flops(rows.path, "prefill attention", flops, seconds, peak)
    yield Points(
        name,
        {
            "tokens": batch * length,
            "heads": heads,
            "kv_heads": kv_heads,
            "context": prefix + length / 2,
            "flops": flops,
        },
        seconds,
        fitted=fitted,
        splits=prefill_splits(heads, fitted),
        family=found.family(rows),
        own=found.own,
        what=f"{what}, {len(rows)} rows of {int(length.min())}..{int(length.max())} tokens",
        table=source.relative(rows),
        prefix=(int(prefix.min()), int(prefix.max())),
    )


def _main_kernel(rows: Table) -> Table:
    """The rows of the kernel that most have: engines take another one for a few layouts of heads."""
    if "kernel_source" not in rows:
        return rows
    names, counts = np.unique(rows.text("kernel_source").astype(str), return_counts=True)
    return rows.equal(kernel_source=str(names[counts.argmax()]))
