"""KV quantisation as a kernel of its own: to int8, fp8 and 4-bit codes per row, and to KIVI's packed groups, and back.

A row is the numbers of one token and head. Groups are those of KIVI's keys (arXiv 2402.02750): per channel over 32
tokens, codes of consecutive tokens in one 32-bit word.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.spec import Build, Check, Place, relative_error

ROWS, OPTIONS = 16, {"num_warps": 4}
LEAST = 1e-8
"""Smallest scale: rows of zeros stay zeros."""
INT8, FP8 = 127.0, 448.0
"""Largest codes of int8 and of fp8 e4m3."""


@triton.jit
def to_codes(x, codes, scales, rows, LARGEST: tl.constexpr, ROUND: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr):
    """Symmetric, one scale per row; ROUND halves away from zero (for whole codes)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    at = row[:, None] * D + tl.arange(0, D)[None, :]
    tile = tl.load(x + at, mask=real[:, None], other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(tile), 1) / LARGEST, 1e-8)
    tile = tile / scale[:, None]
    if ROUND:
        tile = tl.where(tile >= 0, tile + 0.5, tile - 0.5)
    tl.store(codes + at, tile.to(codes.dtype.element_ty), mask=real[:, None])
    tl.store(scales + row, scale, mask=real)


@triton.jit
def from_codes(codes, scales, y, rows, D: tl.constexpr, ROWS: tl.constexpr):
    """Codes x scale of their row."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < rows
    at = row[:, None] * D + tl.arange(0, D)[None, :]
    tile = tl.load(codes + at, mask=real[:, None], other=0.0).to(tl.float32)
    scale = tl.load(scales + row, mask=real, other=0.0)
    tl.store(y + at, (tile * scale[:, None]).to(y.dtype.element_ty), mask=real[:, None])


@triton.jit
def to_groups(x, packed, scales, zeros, D: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr):
    """One group of GROUP tokens of one head, per channel; codes of consecutive tokens share a 32-bit word."""
    EACH: tl.constexpr = 32 // BITS
    WORDS: tl.constexpr = GROUP // EACH
    group = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, GROUP)
    d = tl.arange(0, D)
    tile = tl.load(x + (group * GROUP + token)[:, None] * D + d[None, :]).to(tl.float32)
    low = tl.min(tile, 0)
    scale = tl.maximum((tl.max(tile, 0) - low) / ((1 << BITS) - 1), 1e-8)
    code = ((tile - low[None, :]) / scale[None, :] + 0.5).to(tl.int32)
    code = tl.minimum(tl.maximum(code, 0), (1 << BITS) - 1) << ((token % EACH) * BITS)[:, None]
    word = tl.sum(tl.reshape(code, [WORDS, EACH, D]), 1)
    w = tl.arange(0, WORDS)
    tl.store(packed + (group * WORDS + w)[:, None] * D + d[None, :], word)
    tl.store(scales + group * D + d, scale)
    tl.store(zeros + group * D + d, low)


@triton.jit
def from_groups(packed, scales, zeros, y, D: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr):
    """The inverse of `to_groups`: all tokens of one group."""
    EACH: tl.constexpr = 32 // BITS
    group = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, GROUP)
    d = tl.arange(0, D)
    word = tl.load(packed + (group * (GROUP // EACH) + token // EACH)[:, None] * D + d[None, :])
    code = (word >> ((token % EACH) * BITS)[:, None]) & ((1 << BITS) - 1)
    scale = tl.load(scales + group * D + d)[None, :]
    zero = tl.load(zeros + group * D + d)[None, :]
    tile = code.to(tl.float32) * scale + zero
    tl.store(y + (group * GROUP + token)[:, None] * D + d[None, :], tile.to(y.dtype.element_ty))


def quantise(x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> None:
    """Rows of x [rows, d] to int8 or fp8 codes of the same shape, scales [rows] fp32."""
    rows, d = x.shape
    whole = codes.dtype == torch.int8
    grid = (triton.cdiv(rows, ROWS),)
    to_codes[grid](x, codes, scales, rows, LARGEST=INT8 if whole else FP8, ROUND=whole, D=d, ROWS=ROWS, **OPTIONS)


def dequantise(codes: torch.Tensor, scales: torch.Tensor, y: torch.Tensor) -> None:
    """The inverse of `quantise`, into y [rows, d]."""
    rows, d = y.shape
    from_codes[(triton.cdiv(rows, ROWS),)](codes, scales, y, rows, D=d, ROWS=ROWS, **OPTIONS)


def pack(
    x: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int, group: int = 32
) -> None:
    """Tokens x [tokens, d] to packed [tokens * bits / 32, d] int32, scales and zeros [tokens / group, d] fp32."""
    tokens, d = x.shape
    to_groups[(tokens // group,)](x, packed, scales, zeros, D=d, GROUP=group, BITS=bits, **OPTIONS)


def unpack(
    packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, y: torch.Tensor, bits: int, group: int = 32
) -> None:
    """The inverse of `pack`, into y [tokens, d]."""
    tokens, d = y.shape
    from_groups[(tokens // group,)](packed, scales, zeros, y, D=d, GROUP=group, BITS=bits, **OPTIONS)


def quantised_reference(x: torch.Tensor, codes: torch.dtype) -> torch.Tensor:
    """What rows of x become by way of int8 or fp8 codes, fp32."""
    largest = INT8 if codes == torch.int8 else FP8
    scale = (x.float().abs().amax(1, keepdim=True) / largest).clamp_min(LEAST)
    numbers = x.float() / scale
    if codes == torch.int8:
        numbers = torch.trunc(numbers + 0.5 * torch.sign(numbers))
    return numbers.to(codes).float() * scale


def packed_reference(x: torch.Tensor, bits: int, group: int = 32) -> torch.Tensor:
    """What tokens x [tokens, d] become by way of packed groups, fp32."""
    grouped, most = x.float().view(-1, group, x.shape[1]), 2**bits - 1
    low = grouped.amin(1, keepdim=True)
    scale = ((grouped.amax(1, keepdim=True) - low) / most).clamp_min(LEAST)
    return (((grouped - low) / scale + 0.5).floor().clamp(0, most) * scale + low).view(x.shape)


def _row_check(name: str, codes_type: torch.dtype) -> Check:
    def run(place: Place) -> float:
        rows, d = (5003, 128) if place.full_size else (37, 64)
        x, y = place.random(rows, d), place.poison(rows, d)
        codes = torch.zeros(rows, d, dtype=codes_type, device=place.device)
        scales = place.poison(rows, dtype=torch.float32)
        quantise(x, codes, scales)
        dequantise(codes, scales, y)
        return relative_error(y, quantised_reference(x, codes_type))

    fp8 = codes_type == torch.float8_e4m3fn
    # the interpreter casts to fp8 wrongly (Triton 3.6 to 3.9: carries and subnormals)
    return Check(name, run, interpreter=not fp8, needs=(8, 9) if fp8 else (0, 0))


def _group_check(bits: int) -> Check:
    def run(place: Place) -> float:
        tokens, d, group = (4096, 128, 32) if place.full_size else (64, 64, 32)
        x, y = place.random(tokens, d), place.poison(tokens, d)
        packed = torch.zeros(tokens * bits // 32, d, dtype=torch.int32, device=place.device)
        scales, zeros = (place.poison(tokens // group, d, dtype=torch.float32) for _ in range(2))
        pack(x, packed, scales, zeros, bits, group)
        unpack(packed, scales, zeros, y, bits, group)
        return relative_error(y, packed_reference(x, bits, group))

    return Check(f"quantise_int{bits}", run)


CHECKS = (
    _row_check("quantise_int8", torch.int8),
    _row_check("quantise_fp8", torch.float8_e4m3fn),
    _group_check(4),
    _group_check(2),
)
_WIDE = {"cuda": ("wide_access",)}


def _rows_build(name: str, to: bool, codes: str, **constants: object) -> Build:
    data = {"codes": codes, "scales": "*fp32"}
    signature = {"x": "*bf16"} | data if to else data | {"y": "*bf16"}
    targets = ("cuda:90", "cuda:100") if codes == "*fp8e4nv" else ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
    kernel = to_codes if to else from_codes
    sizes = {"D": 128, "ROWS": ROWS} | constants
    return Build(name, kernel, signature | {"rows": "i32"}, sizes, OPTIONS, targets=targets, must=_WIDE)


def _groups_build(name: str, to: bool, bits: int) -> Build:
    data = {"packed": "*i32", "scales": "*fp32", "zeros": "*fp32"}
    signature = {"x": "*bf16"} | data if to else data | {"y": "*bf16"}
    sizes = {"D": 128, "GROUP": 32, "BITS": bits}
    return Build(name, to_groups if to else from_groups, signature, sizes, OPTIONS, must=_WIDE)


BUILDS = (
    _rows_build("quantise_int8", True, "*i8", LARGEST=INT8, ROUND=True),
    _rows_build("dequantise_int8", False, "*i8"),
    _rows_build("quantise_fp8", True, "*fp8e4nv", LARGEST=FP8, ROUND=False),
    _rows_build("dequantise_fp8", False, "*fp8e4nv"),
    *(_groups_build(f"quantise_int{bits}", True, bits) for bits in (4, 2)),
    *(_groups_build(f"dequantise_int{bits}", False, bits) for bits in (4, 2)),
)
