"""Decode attention of multi-head latent attention over a paged cache: all heads share one latent vector per token.

A token is `latent` numbers, which serve as key and value, and `rope` numbers of key alone (512 + 64 in DeepSeek-V2 and
V3, arXiv 2405.04434 section 2.1, with the up-projections absorbed into the queries). Context split as in `decode`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from calibration.kernels.decode import LOG2E, merge, scratch
from calibration.kernels.portable import ceil_div, dot
from calibration.kernels.spec import CUDA, Build, Check, Place, relative_error

ROWS = 16
"""Heads per program."""
TOKENS = 32
OPTIONS = {"num_warps": 8, "num_stages": 2}
GFX942 = {"TOKENS": 16}, {"num_warps": 8, "num_stages": 1}
"""What does not spill there: (constants, options)."""


# not compiled again for every width that a table can have
@triton.jit(do_not_specialize=["table_width"])
def mla_parts(
    queries,
    cache,
    table,
    lengths,
    part_out,
    part_lse,
    scale,
    table_width,
    HEADS: tl.constexpr,
    ROWS: tl.constexpr,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    PAGE: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """ROWS heads of one sequence over one part of its context; `scale` in units of log2(e)."""
    sequence = tl.program_id(0)
    part = tl.program_id(2)
    parts = tl.num_programs(2)
    WIDTH: tl.constexpr = LATENT + ROPE
    length = tl.load(lengths + sequence)
    step = ceil_div(ceil_div(length, parts), TOKENS) * TOKENS
    first = part * step
    last = tl.minimum(first + step, length)
    head = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    real = head < HEADS
    c = tl.arange(0, LATENT)
    r = tl.arange(0, ROPE)
    row = sequence * HEADS + head
    q_latent = tl.load(queries + row[:, None] * WIDTH + c[None, :], mask=real[:, None], other=0.0)
    q_rope = tl.load(queries + row[:, None] * WIDTH + LATENT + r[None, :], mask=real[:, None], other=0.0)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, LATENT], tl.float32)
    for start in range(first, last, TOKENS):
        token = start + tl.arange(0, TOKENS)
        inside = token < last
        page = tl.load(table + sequence * table_width + token // PAGE, mask=inside, other=0).to(tl.int64)
        base = ((page * PAGE + token % PAGE) * WIDTH)[:, None]
        latent = tl.load(cache + base + c[None, :], mask=inside[:, None], other=0.0)
        rope = tl.load(cache + base + LATENT + r[None, :], mask=inside[:, None], other=0.0)
        score = (dot(q_latent, tl.trans(latent)) + dot(q_rope, tl.trans(rope))) * scale
        score = tl.where(inside[None, :], score, -float("inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp2(top - higher)
        p = tl.exp2(score - higher[:, None])
        out = out * shrink[:, None] + dot(p.to(latent.dtype), latent)
        weight = weight * shrink + tl.sum(p, 1)
        top = higher
    some = last > first
    divisor = tl.where(some, weight, 1.0)
    at = row * parts + part
    out = tl.where(some, out / divisor[:, None], 0.0)
    tl.store(part_out + at[:, None] * LATENT + c[None, :], out, mask=real[:, None])
    tl.store(part_lse + at, tl.where(some, top + tl.log2(divisor), -float("inf")), mask=real)


@dataclass(frozen=True)
class Latent:
    """Shape: heads, numbers per token as key and value, and as key alone, tokens per page."""

    heads: int = 128
    latent: int = 512
    rope: int = 64
    page: int = 64

    @property
    def width(self) -> int:
        """Numbers per token."""
        return self.latent + self.rope


def attend(
    queries: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    out: torch.Tensor,
    work: tuple[torch.Tensor, torch.Tensor],
    shape: Latent,
) -> None:
    """Attention of queries [batch, heads, width] over cache [pages, page, width] into out [batch, heads, latent]."""
    batch, (part_out, part_lse) = queries.shape[0], work
    parts = part_lse.shape[2]
    tile, options = GFX942 if torch.version.hip else ({}, OPTIONS)
    mla_parts[(batch, triton.cdiv(shape.heads, ROWS), parts)](
        *(queries, cache, table, lengths, part_out, part_lse, LOG2E / math.sqrt(shape.width), table.shape[1]),
        **constants(shape) | tile,
        **options,
    )
    merge(work, out)


def constants(shape: Latent) -> dict[str, int]:
    """What `mla_parts` is compiled for."""
    sizes = {"HEADS": shape.heads, "LATENT": shape.latent, "ROPE": shape.rope, "PAGE": shape.page}
    return sizes | {"ROWS": ROWS, "TOKENS": TOKENS}


def reference(queries: torch.Tensor, tokens: torch.Tensor, latent: int) -> torch.Tensor:
    """float64 attention of one sequence: queries [heads, width], tokens [length, width]."""
    q, t = queries.double(), tokens.double()
    return torch.softmax(q @ t.T / math.sqrt(q.shape[1]), dim=-1) @ t[:, :latent]


def check_mla(place: Place) -> float:
    """Ragged lengths over scattered pages."""
    shape = Latent() if place.full_size else Latent(16, 64, 16, 16)
    lengths = [1500, 3, 700] if place.full_size else [100, 9]
    counts = [math.ceil(length / shape.page) for length in lengths]
    cache = place.random(sum(counts) + 2, shape.page, shape.width, seed=3)
    order = torch.randperm(len(cache), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    for row, count in enumerate(counts):
        table[row, :count] = order[sum(counts[:row]) :][:count]
    queries = place.random(len(lengths), shape.heads, shape.width, seed=4)
    out = place.poison(len(lengths), shape.heads, shape.latent)
    work = scratch(len(lengths), shape.heads, shape.latent, 2, place.device)
    tokens = torch.tensor(lengths, dtype=torch.int32, device=place.device)
    attend(queries, cache, table.to(place.device), tokens, out, work, shape)
    rows = [
        reference(queries[i], cache[table[i, :count].long()].flatten(0, 1)[: lengths[i]], shape.latent)
        for i, count in enumerate(counts)
    ]
    return relative_error(out, torch.stack(rows))


CHECKS = (Check("mla_decode", check_mla, dtypes=("f16", "bf16")),)
_SIGNATURE = {"queries": "*bf16", "cache": "*bf16", "table": "*i32", "lengths": "*i32"}
_SIGNATURE |= {"part_out": "*fp32", "part_lse": "*fp32", "scale": "fp32", "table_width": "i32"}
BUILDS = (
    Build(
        "mla_decode",
        mla_parts,
        _SIGNATURE,
        constants(Latent()),
        OPTIONS,
        targets=CUDA,
        must={"cuda": ("wide_access", "tensor_cores")},
    ),
    Build(
        "mla_decode_gfx942",
        mla_parts,
        _SIGNATURE,
        constants(Latent()) | GFX942[0],
        GFX942[1],
        targets=("hip:gfx942",),
        must={"hip:gfx942": ("wide_access", "tensor_cores")},
    ),
)
