"""Streams over one buffer: read, write, copy. HBM rates; the L2 knee when a small buffer is read again and again."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.spec import CUDA, EXACT, Build, Check, Place, mismatches

BLOCK, WARPS = 4096, 8
WHOLE = 16
"""Sizes are multiples of it: else the compiler cannot prove alignment and drops 16-byte accesses."""
STRIDE = 7919
"""Programs move on by so many places between repetitions, so that none finds its own data in its L1."""


@triton.jit
def stream_read(x, sums, n, repeats, BLOCK: tl.constexpr, STRIDE: tl.constexpr):
    """Read n elements `repeats` times; the sum of a program's elements is stored, so that nothing is optimised away."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for repeat in range(repeats):
        first = (program + repeat * STRIDE) % programs
        for start in range(first * BLOCK, n, programs * BLOCK):
            i = start + lane
            total += tl.load(x + i, mask=i < n, other=0.0, cache_modifier=".cg").to(tl.float32)
    tl.store(sums + program, tl.sum(total, axis=0))


@triton.jit
def stream_write(y, n, value, BLOCK: tl.constexpr):
    """Write n elements."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    lane = tl.arange(0, BLOCK)
    # not value.to(...): scalar arguments are plain Python numbers in the interpreter
    tile = tl.full([BLOCK], value, tl.float32).to(y.dtype.element_ty)
    for start in range(program * BLOCK, n, programs * BLOCK):
        i = start + lane
        tl.store(y + i, tile, mask=i < n)


@triton.jit
def stream_copy(x, y, n, BLOCK: tl.constexpr):
    """Copy n elements, passing through L2 with the least footprint."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    lane = tl.arange(0, BLOCK)
    for start in range(program * BLOCK, n, programs * BLOCK):
        i = start + lane
        tile = tl.load(x + i, mask=i < n, eviction_policy="evict_first")
        tl.store(y + i, tile, mask=i < n, eviction_policy="evict_first")


def _whole(x: torch.Tensor) -> int:
    if x.numel() % WHOLE or x.numel() >= 2**31:
        raise ValueError(f"{x.numel()} elements: not a multiple of {WHOLE} below 2^31")
    return int(x.numel())


def read(x: torch.Tensor, sums: torch.Tensor, repeats: int = 1, block: int = BLOCK) -> None:
    """Launch one program per element of `sums` (fp32), which together read x `repeats` times."""
    stream_read[(sums.numel(),)](x, sums, _whole(x), repeats, BLOCK=block, STRIDE=STRIDE, num_warps=WARPS)


def write(y: torch.Tensor, value: float, programs: int, block: int = BLOCK) -> None:
    """Fill y with `value`."""
    stream_write[(programs,)](y, _whole(y), value, BLOCK=block, num_warps=WARPS)


def copy(x: torch.Tensor, y: torch.Tensor, programs: int, block: int = BLOCK) -> None:
    """Copy x to y."""
    stream_copy[(programs,)](x, y, _whole(x), BLOCK=block, num_warps=WARPS)


def _sizes(place: Place) -> tuple[int, int, int]:
    """(elements, programs, block): not a multiple of programs * block, so that the mask matters."""
    return (48 * 2**20 + 16, 1056, BLOCK) if place.full_size else (4992, 4, 512)


def check_read(place: Place) -> float:
    """Sum of all programs against 3 x the sum in torch, relative to the sum of magnitudes."""
    n, programs, block = _sizes(place)
    x, sums = place.random(n), place.poison(programs, dtype=torch.float32)
    read(x, sums, repeats=3, block=block)
    return abs(float(sums.double().sum() / 3 - x.double().sum())) / float(x.double().abs().sum())


def check_write(place: Place) -> float:
    """Share of elements that are not the value."""
    n, programs, block = _sizes(place)
    y = place.poison(n)
    write(y, 1.5, programs, block)
    return mismatches(y, torch.full_like(y, 1.5))


def check_copy(place: Place) -> float:
    """Share of elements that differ."""
    n, programs, block = _sizes(place)
    x, y = place.random(n), place.poison(n)
    copy(x, y, programs, block)
    return mismatches(y, x)


CHECKS = (
    Check("stream_read", check_read, dtypes=("f32",)),
    Check("stream_write", check_write, EXACT, dtypes=("f32",)),
    Check("stream_copy", check_copy, EXACT, dtypes=("f32",)),
)
_WIDE = {"cuda": ("wide_access",), "hip:gfx942": ("wide_access",)}
BUILDS = (
    Build(
        "stream_read",
        stream_read,
        {"x": "*fp32", "sums": "*fp32", "n": "i32", "repeats": "i32"},
        {"BLOCK": BLOCK, "STRIDE": STRIDE},
        {"num_warps": WARPS},
        whole=("n",),
        must=_WIDE,
    ),
    Build(
        "stream_write",
        stream_write,
        {"y": "*fp32", "n": "i32", "value": "fp32"},
        {"BLOCK": BLOCK},
        {"num_warps": WARPS},
        whole=("n",),
        must=_WIDE,
    ),
    Build(
        "stream_copy",
        stream_copy,
        {"x": "*fp32", "y": "*fp32", "n": "i32"},
        {"BLOCK": BLOCK},
        {"num_warps": WARPS},
        whole=("n",),
        must=_WIDE | dict.fromkeys(CUDA, ("wide_access", "evict_first")),
    ),
)
