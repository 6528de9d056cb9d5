"""Trials of the rest of a layer: matrix products, elementwise kernels, a whole decode layer in a graph."""

from __future__ import annotations

from typing import Any

import torch

from calibration.suite import plan_cpu
from calibration.suite.lab import Lab
from calibration.suite.timing import Kernel, Trial

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 4096, 14336, 32, 8, 128, 128256


def gemm(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: dtype, impl, m, n, k. Inputs and weights are cold."""
    m, n, k = key["m"], key["n"], key["k"]
    x = lab.pool("gemm x", m * k, lab.dtype).view(m, k)
    weights = lab.pool("gemm weight", lab.rotation * n * k, lab.dtype).view(lab.rotation, n, k)
    weight = weights[0]
    y = lab.pool("gemm y", m * n, lab.dtype).view(m, n)
    flops = 2.0 * m * n * k
    if key["dtype"] == "fp8":
        return Kernel(_fp8(lab, m, n, k), nbytes=float(n * k + m * k + 2 * m * n), flops=flops)
    nbytes = 2.0 * (m * k + n * k + m * n)
    floor = 2.0 * n * k / lab.facts.peak if lab.facts.peak and n * k > 2 * lab.facts.l2_bytes else 0.0
    if key["impl"] == "triton":
        from calibration.kernels import gemm as kernel

        return Kernel(lambda _: kernel.multiply(x, weight, y), nbytes=nbytes, flops=flops)
    return Kernel(
        lambda number: torch.mm(x, weights[number % lab.rotation].t(), out=y), nbytes=nbytes, flops=flops, floor_s=floor
    )


def _fp8(lab: Lab, m: int, n: int, k: int) -> Any:
    rows = max(m, 16)  # the library wants tiles of 16
    x = lab.pool("gemm x fp8", rows * k, torch.float8_e4m3fn).view(rows, k)
    weight = lab.pool("gemm weight fp8", n * k, torch.float8_e4m3fn).view(n, k).t()
    one = torch.ones((), device=lab.device)
    # sums stay in the tensor cores, as in vLLM's products of fp8 (CUTLASS schedules "FP8FastAccum")
    return lambda _: torch._scaled_mm(x, weight, scale_a=one, scale_b=one, out_dtype=lab.dtype, use_fast_accum=True)


def elementwise(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: op, tokens, at the widths of Llama-3.1-8B."""
    from calibration.kernels import elementwise as kernels

    op, tokens = key["op"], key["tokens"]
    if op == "rms_norm":
        x, gain = lab.random(tokens, HIDDEN), lab.random(HIDDEN)
        y = torch.empty_like(x)
        return Kernel(lambda _: kernels.rms_norm(x, gain, y), nbytes=4.0 * tokens * HIDDEN)
    if op == "silu_gate":
        x, y = lab.random(tokens, 2 * FFN), lab.random(tokens, FFN)
        return Kernel(lambda _: kernels.silu_gate(x, y), nbytes=6.0 * tokens * FFN)
    if op == "rotary":
        x, angles = lab.random(tokens, HEADS, HEAD_DIM), lab.random(tokens, HEAD_DIM // 2, dtype=torch.float32)
        cosine, sine = angles.cos(), angles.sin()
        return Kernel(lambda _: kernels.rotate(x, cosine, sine), nbytes=4.0 * x.numel() + 8.0 * angles.numel())
    if op == "kv_write":
        new, pages = lab.random(tokens, KV_HEADS, HEAD_DIM), lab.random(1024, 16, KV_HEADS, HEAD_DIM)
        slots = lab.integers(torch.randperm(16384)[:tokens], torch.int64)
        return Kernel(lambda _: kernels.write_kv(new, pages, slots), nbytes=4.0 * new.numel())
    scores = lab.random(tokens, VOCABULARY, dtype=torch.float32)
    return Kernel(lambda _: scores.argmax(dim=1), nbytes=4.0 * scores.numel())


def layer(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: batch, seq: one decode layer of Llama-3.1-8B in a CUDA graph; on the CPU a small one as it is."""
    from calibration.mini_engine.layer import LayerShape, LayerWeights, decode_layer, layer_buffers
    from calibration.suite.bench_memory import graph_of

    shape = LayerShape(HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, page=16)
    if lab.cpu:
        shape = LayerShape(plan_cpu.HIDDEN, plan_cpu.HEADS, plan_cpu.KV_HEADS, plan_cpu.HEAD_DIM, plan_cpu.FFN, page=16)
    weights, cache = LayerWeights.random(lab, shape), lab.cache(shape.layout, [key["seq"]] * key["batch"])
    buffers = layer_buffers(lab, shape, cache)
    hidden = lab.random(key["batch"], shape.hidden)
    if lab.cpu:
        return Kernel(lambda _: decode_layer(hidden, weights, cache, buffers))
    graph = graph_of(lab, lambda: decode_layer(hidden, weights, cache, buffers), 1)
    nbytes = 2.0 * shape.weight_numbers + key["batch"] * key["seq"] * shape.layout.token_bytes()
    return Kernel(lambda _: graph.replay(), nbytes=nbytes)
