"""Copies of pages by a kernel: gather and scatter between pools, by page number or by raw address.

Either side may be pinned host memory, which a GPU reads and writes over the link without a copy engine (zero-copy).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.spec import EXACT, Build, Check, Place, mismatches

WORDS, WARPS = 1024, 4
"""Words of 8 bytes that a program moves at a time, and its warps."""
WHOLE_BYTES = 128
"""Pages are multiples of it."""


@triton.jit(do_not_specialize=["count"])
def page_copy(source, target, source_pages, target_pages, count, words, WORDS: tl.constexpr):
    """Copy `words` int64 words of page source_pages[j] to page target_pages[j], for all j < count."""
    program = tl.program_id(0)
    lane = tl.arange(0, WORDS)
    for j in range(program, count, tl.num_programs(0)):
        read = source + tl.load(source_pages + j).to(tl.int64) * words
        written = target + tl.load(target_pages + j).to(tl.int64) * words
        for start in range(0, words, WORDS):
            i = start + lane
            tl.store(written + i, tl.load(read + i, mask=i < words), mask=i < words)


@triton.jit(do_not_specialize=["count"])
def address_copy(sources, targets, sizes, count, WORDS: tl.constexpr):
    """The same between raw 64-bit addresses: `sizes` bytes each, everything a multiple of 128 bytes."""
    program = tl.program_id(0)
    lane = tl.arange(0, WORDS)
    for j in range(program, count, tl.num_programs(0)):
        read = tl.multiple_of(tl.load(sources + j).to(tl.pointer_type(tl.int64)), 16)
        written = tl.multiple_of(tl.load(targets + j).to(tl.pointer_type(tl.int64)), 16)
        words = tl.multiple_of(tl.load(sizes + j) // 8, 16)
        for start in range(0, words, WORDS):
            i = start + lane
            tl.store(written + i, tl.load(read + i, mask=i < words), mask=i < words)


def by_page(
    source: torch.Tensor,
    target: torch.Tensor,
    source_pages: torch.Tensor,
    target_pages: torch.Tensor,
    programs: int,
    block: int = WORDS,
) -> None:
    """Copy pages between pools [pages, words] of int64, either may be pinned; page numbers int32, on the GPU."""
    words = source.shape[1]
    if words * 8 % WHOLE_BYTES:
        raise ValueError(f"pages of {words * 8} bytes: not a multiple of {WHOLE_BYTES}")
    page_copy[(programs,)](
        source, target, source_pages, target_pages, source_pages.numel(), words, WORDS=block, num_warps=WARPS
    )


def by_address(
    sources: torch.Tensor, targets: torch.Tensor, sizes: torch.Tensor, programs: int, block: int = WORDS
) -> None:
    """Copy sizes[j] bytes from address sources[j] to targets[j] (all int64, on the GPU)."""
    address_copy[(programs,)](sources, targets, sizes, sizes.numel(), WORDS=block, num_warps=WARPS)


def _pools(place: Place) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(source, target, pages read, pages written): random words, every third page moved elsewhere."""
    count, words = (96, 8192) if place.full_size else (9, 48)
    source = torch.randint(1, 1 << 60, (count, words), generator=torch.Generator().manual_seed(0)).to(place.device)
    read = torch.arange(0, count, 3, dtype=torch.int32, device=place.device)
    return source, torch.zeros_like(source), read, (read + 1).flip(0).contiguous()


def check_by_page(place: Place) -> float:
    """Share of words that are not where they belong, those that were to stay 0 included."""
    source, target, read, written = _pools(place)
    by_page(source, target, read, written, programs=2, block=WORDS if place.full_size else 32)
    expected = torch.zeros_like(source)
    expected[written.long()] = source[read.long()]
    return mismatches(target, expected)


def check_by_address(place: Place) -> float:
    """As `check_by_page`."""
    source, target, read, written = _pools(place)
    nbytes = source.shape[1] * 8
    sources, targets = (pool.data_ptr() + pages.long() * nbytes for pool, pages in ((source, read), (target, written)))
    by_address(sources, targets, torch.full_like(sources, nbytes), 2, WORDS if place.full_size else 32)
    expected = torch.zeros_like(source)
    expected[written.long()] = source[read.long()]
    return mismatches(target, expected)


CHECKS = (
    Check("page_copy", check_by_page, EXACT, dtypes=("f32",)),
    Check("address_copy", check_by_address, EXACT, dtypes=("f32",)),
)
_WIDE = {"cuda": ("wide_access",), "hip:gfx942": ("wide_access",)}
BUILDS = (
    Build(
        "page_copy",
        page_copy,
        {"source": "*i64", "target": "*i64", "source_pages": "*i32", "target_pages": "*i32"}
        | {"count": "i32", "words": "i32"},
        {"WORDS": WORDS},
        {"num_warps": WARPS},
        whole=("words",),
        must=_WIDE,
    ),
    Build(
        "address_copy",
        address_copy,
        {"sources": "*i64", "targets": "*i64", "sizes": "*i64", "count": "i32"},
        {"WORDS": WORDS},
        {"num_warps": WARPS},
        must=_WIDE,
    ),
)
