"""Prefetch into L2 by inline PTX: line by line (any NVIDIA GPU), or a page per instruction (Hopper and later).

Assembly knows no mask, so addresses are clamped; its result is stored, so that it is not dead code.
SOURCE of the instructions: PTX ISA, `prefetch.global.L2` and `cp.async.bulk.prefetch.L2.global` (sm_90).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.spec import CUDA, EXACT, Build, Check, Place

LINE_BYTES = 128
LINES = 128
"""Lines per program of the kernel that goes line by line."""


@triton.jit
def prefetch_lines(data, nbytes, done, LINES: tl.constexpr, LINE_BYTES: tl.constexpr):
    """One instruction per line of `nbytes` bytes; data is a pointer to bytes."""
    program = tl.program_id(0)
    at = (program * LINES + tl.arange(0, LINES)).to(tl.int64) * LINE_BYTES
    address = (data + tl.where(at < nbytes, at, 0)).to(tl.int64)
    zero = tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
    )
    tl.store(done + program, tl.sum(zero, axis=0))


@triton.jit
def prefetch_pages(data, pages, page_bytes, unit, done):
    """One instruction per page of `page_bytes` bytes, which starts at its number times `unit` (multiples of 16)."""
    program = tl.program_id(0)
    address = (data + tl.load(pages + program).to(tl.int64) * unit).to(tl.int64)
    zero = tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [address, page_bytes],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
    tl.store(done + program, zero)


def lines(data: torch.Tensor, nbytes: int, done: torch.Tensor) -> None:
    """Prefetch the first `nbytes` of data (uint8); `done` (int32) has a word per `LINES` lines."""
    programs = triton.cdiv(nbytes, LINES * LINE_BYTES)
    prefetch_lines[(programs,)](data, nbytes, done, LINES=LINES, LINE_BYTES=LINE_BYTES, num_warps=4)


def pages(data: torch.Tensor, numbers: torch.Tensor, page_bytes: int, done: torch.Tensor, unit: int = 0) -> None:
    """Prefetch the pages `numbers` (int32) of data (uint8), each `unit` bytes (default: a page) after the one before;
    `done` (int32) has a word per page."""
    prefetch_pages[(numbers.numel(),)](data, numbers, page_bytes, unit or page_bytes, done, num_warps=1)


def check_lines(place: Place) -> float:
    """Share of programs that did not run to the end. That bytes arrive in L2 only shows in time."""
    data = torch.zeros(1 << 20, dtype=torch.uint8, device=place.device)
    done = place.poison(data.numel() // (LINES * LINE_BYTES), dtype=torch.int32)
    lines(data, data.numel(), done)
    return float((done != 0).double().mean())


def check_pages(place: Place) -> float:
    """As `check_lines`."""
    data = torch.zeros(1 << 20, dtype=torch.uint8, device=place.device)
    numbers = torch.arange(15, -1, -1, dtype=torch.int32, device=place.device)
    done = place.poison(16, dtype=torch.int32)
    pages(data, numbers, 1 << 16, done)
    return float((done != 0).double().mean())


CHECKS = (
    Check("l2_prefetch_lines", check_lines, EXACT, dtypes=("f32",), interpreter=False),
    Check("l2_prefetch_pages", check_pages, EXACT, dtypes=("f32",), interpreter=False, needs=(9, 0)),
)
BUILDS = (
    Build(
        "l2_prefetch_lines",
        prefetch_lines,
        {"data": "*u8", "nbytes": "i64", "done": "*i32"},
        {"LINES": LINES, "LINE_BYTES": LINE_BYTES},
        {"num_warps": 4},
        whole=("nbytes",),
        targets=CUDA,
        must={"cuda": ("prefetch_line",)},
    ),
    Build(
        "l2_prefetch_pages",
        prefetch_pages,
        {"data": "*u8", "pages": "*i32", "page_bytes": "i32", "unit": "i32", "done": "*i32"},
        {},
        {"num_warps": 1},
        whole=("page_bytes", "unit"),
        targets=CUDA[1:],
        must={"cuda": ("prefetch_bulk",)},
    ),
)
