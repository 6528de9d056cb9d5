"""Trials of attention: decode by format and shape, skewed batches, MLA, prefill after a prefix."""

from __future__ import annotations

import math
from typing import Any

import torch

from calibration.kernels.kv_cache import Layout
from calibration.suite import ops
from calibration.suite.lab import Lab
from calibration.suite.plan_attention import HEAD_DIM, skewed
from calibration.suite.timing import Kernel, Trial


def decode(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: format, heads, kv_heads, page, batch, seq."""
    return _decode(lab, key, [key["seq"]] * key["batch"])


def decode_skew(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: skew, batch, seq (the mean). 8B heads, pages of 16, bf16."""
    lengths = skewed(key["skew"], key["batch"], key["seq"])
    shape = {"format": "bf16", "heads": 32, "kv_heads": 8, "page": 16}
    trial = _decode(lab, shape | key, lengths)
    mean = sum(lengths) / len(lengths)
    spread = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths)) / mean
    trial.extra = {"cv": spread, "longest": float(max(lengths))}
    return trial


def from_host(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: batch, seq: decode attention whose keys and values lie in pinned host memory (zero-copy)."""
    shape = {"format": "bf16", "heads": 32, "kv_heads": 8, "page": 16}
    return _decode(lab, shape | key, [key["seq"]] * key["batch"], host=True)


def _decode(lab: Lab, key: dict[str, Any], lengths: list[int], host: bool = False) -> Kernel:
    dim = HEAD_DIM
    layout = Layout(key["heads"], key["kv_heads"], dim, key["page"], key["format"])
    caches = [lab.cache(layout, lengths, seed=seed, host=host) for seed in range(lab.rotation)]
    queries = lab.random(len(lengths), layout.heads, dim)
    out, work = torch.empty_like(queries), None
    nbytes = sum(lengths) * layout.token_bytes()
    floor = 0.0
    if not lab.cpu:
        from calibration.kernels import decode as kernel

        parts = kernel.parts_for(len(lengths), layout.kv_heads, max(lengths), lab.facts.sms)
        work = kernel.scratch(len(lengths), layout.heads, dim, parts, lab.device)
        if lab.facts.peak and not host and nbytes > 4 * lab.facts.l2_bytes:
            floor = nbytes / lab.facts.peak
    return Kernel(
        lambda number: ops.decode(queries, caches[number % len(caches)], out, work), nbytes=nbytes, floor_s=floor
    )


def mla(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: heads, batch, seq."""
    from calibration.kernels import decode as merge
    from calibration.kernels import mla as kernel

    shape, batch = kernel.Latent(heads=key["heads"]), key["batch"]
    pages = math.ceil(key["seq"] / shape.page)
    cache = lab.pool("latent", batch * pages * shape.page * shape.width, lab.dtype)
    order = torch.randperm(batch * pages, generator=torch.Generator().manual_seed(0))
    table = lab.integers(order).view(batch, pages)
    lengths = lab.integers([key["seq"]] * batch)
    queries = lab.random(batch, shape.heads, shape.width)
    out = torch.empty(batch, shape.heads, shape.latent, dtype=lab.dtype, device=lab.device)
    blocks = math.ceil(shape.heads / kernel.ROWS)
    parts = merge.parts_for(batch, blocks, key["seq"], lab.facts.sms)
    work = merge.scratch(batch, shape.heads, shape.latent, parts, lab.device)
    pool = cache.view(batch * pages, shape.page, shape.width)
    return Kernel(
        lambda _: kernel.attend(queries, pool, table, lengths, out, work, shape),
        nbytes=2.0 * batch * key["seq"] * shape.width,
        flops=2.0 * batch * key["seq"] * shape.heads * (shape.width + shape.latent),
    )


def prefill(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: impl (triton: ours, on the CPU torch; sdpa: torch's), heads, kv_heads, tokens, prefix."""
    dim = HEAD_DIM
    layout, new, prefix = Layout(key["heads"], key["kv_heads"], dim), key["tokens"], key["prefix"]
    queries = lab.random(new, layout.heads, dim)
    flops = 4.0 * layout.heads * dim * (new * prefix + new * new / 2)
    if key["impl"] == "sdpa":
        return Kernel(_sdpa(lab, layout, queries, prefix), flops=flops)
    cache, out = lab.cache(layout, [prefix + new]), torch.empty_like(queries)
    return Kernel(lambda _: ops.prefill(queries, cache, 0, prefix, out), flops=flops)


def _sdpa(lab: Lab, layout: Layout, queries: torch.Tensor, prefix: int) -> Any:
    from torch.nn.attention.bias import causal_lower_right

    new, group = queries.shape[0], layout.heads // layout.kv_heads
    keys, values = (
        lab.random(1, layout.kv_heads, prefix + new, layout.head_dim).repeat_interleave(group, dim=1) for _ in range(2)
    )
    q, mask = queries.transpose(0, 1)[None].contiguous(), causal_lower_right(new, prefix + new)
    return lambda _: torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
