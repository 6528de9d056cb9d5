"""Trials of work on KV pages: gather and scatter in HBM, quantisation, digests."""

from __future__ import annotations

from typing import Any

import torch

from calibration.suite.lab import Lab
from calibration.suite.timing import Kernel, Trial

KV_HEADS, HEAD_DIM, PAGE, TOP = 8, 128, 16, 64


def page_copy(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: bytes, pages: scattered pages to scattered places."""
    from calibration.kernels import pages

    words, count = key["bytes"] // 8, key["pages"]
    source = lab.pool("pages from", words * count, torch.int64).view(count, words)
    target = lab.pool("pages to", words * count, torch.int64).view(count, words)
    read, written = (lab.integers(torch.randperm(count)) for _ in range(2))
    programs = min(4 * lab.facts.sms, count)
    return Kernel(lambda _: pages.by_page(source, target, read, written, programs), nbytes=2.0 * key["bytes"] * count)


def quantise(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: format, op (quantise, dequantise), numbers, in rows of 128."""
    from calibration.kernels import quantise as kernels

    rows, form = key["numbers"] // HEAD_DIM, key["format"]
    x = lab.pool("quantise x", rows * HEAD_DIM, lab.dtype).view(rows, HEAD_DIM)
    if form in {"int8", "fp8"}:
        kind = torch.int8 if form == "int8" else torch.float8_e4m3fn
        codes = lab.pool(f"quantise {form}", rows * HEAD_DIM, kind).view(rows, HEAD_DIM)
        scales = lab.pool("quantise scales", rows, torch.float32)
        nbytes = 3.0 * x.numel() + 4.0 * rows
        if key["op"] == "quantise":
            return Kernel(lambda _: kernels.quantise(x, codes, scales), nbytes=nbytes)
        return Kernel(lambda _: kernels.dequantise(codes, scales, x), nbytes=nbytes)
    bits, groups = int(form.removeprefix("int")), rows // 32
    packed = lab.pool("quantise packed", rows * bits // 32 * HEAD_DIM, torch.int32).view(-1, HEAD_DIM)
    scales, zeros = (
        lab.pool(f"quantise group {name}", groups * HEAD_DIM, torch.float32).view(groups, HEAD_DIM)
        for name in ("scales", "zeros")
    )
    nbytes = 2.0 * x.numel() + 4.0 * packed.numel() + 8.0 * scales.numel()
    if key["op"] == "quantise":
        return Kernel(lambda _: kernels.pack(x, packed, scales, zeros, bits), nbytes=nbytes)
    return Kernel(lambda _: kernels.unpack(packed, scales, zeros, x, bits), nbytes=nbytes)


def digest(lab: Lab, key: dict[str, Any]) -> Trial:
    """key: what (build, score, top), pages, batch: digests of pages, bounds of scores, the best pages."""
    from calibration.kernels import digest as kernels

    pages, batch = key["pages"], key["batch"]
    size = KV_HEADS * HEAD_DIM
    each = pages * batch  # no two sequences have a page in common
    low, high = (
        lab.pool(f"digest {name}", each * size, lab.dtype).view(each, KV_HEADS, HEAD_DIM) for name in ("low", "high")
    )
    if key["what"] == "build":
        keys = lab.pool("digest keys", pages * PAGE * size, lab.dtype).view(pages, PAGE, KV_HEADS, HEAD_DIM)
        return Kernel(lambda _: kernels.build(keys, low, high), nbytes=2.0 * (keys.numel() + 2 * low.numel()))
    scores = torch.rand(batch, KV_HEADS, pages, device=lab.device)
    if key["what"] == "top":
        return Kernel(lambda _: scores.topk(min(TOP, pages), dim=2, sorted=False), nbytes=4.0 * scores.numel())
    table = lab.integers(torch.randperm(each)).view(batch, pages)
    queries = lab.random(batch, 32, HEAD_DIM)
    nbytes = 4.0 * batch * pages * size
    return Kernel(lambda _: kernels.score(queries, low, high, table, scores), nbytes=nbytes)
