"""A paged KV cache of one layer in the formats that are measured, and what attention over it should give.

Codes of a token and head are its `head_dim` numbers, packed: channel 4i + j of 2-bit codes is in bits 2j of byte i.
`Format.kind` says what turns a code into a number. SOURCE of the 2-bit layout: KIVI (arXiv 2402.02750), keys quantised
per channel in groups of tokens, values per token in groups of channels; 4-bit and 8-bit: one scale per token and head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch


@dataclass(frozen=True)
class Format:
    """How numbers of the cache are stored."""

    bits: int
    kind: int
    """0: as they are; 1: code x scale; 2: code x scale + zero, per token and head; 3: KIVI."""
    codes: torch.dtype | None
    """Type of the packed codes; None: that of the queries."""

    def packed(self, head_dim: int) -> int:
        """Elements that hold the codes of one token and head."""
        return head_dim if self.bits >= 8 else head_dim * self.bits // 8


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "bf16": Format(16, 0, None),
        "int8": Format(8, 1, torch.int8),
        "fp8": Format(8, 1, torch.float8_e4m3fn),
        "int4": Format(4, 2, torch.uint8),
        "int2": Format(2, 3, torch.uint8),
    }
)
KEY_GROUP = 32
"""Most tokens that share a scale of a key channel; a group does not cross pages."""
VALUE_GROUP = 32
"""Channels of a value that share a scale."""


@dataclass(frozen=True)
class Layout:
    """Shape of a cache: heads of the model, tokens per page, format."""

    heads: int
    kv_heads: int
    head_dim: int = 128
    page: int = 16
    format: str = "bf16"

    @property
    def key_group(self) -> int:
        """Tokens that share a scale of a key channel (KIVI)."""
        return min(self.page, KEY_GROUP)

    def token_bytes(self) -> float:
        """Bytes of keys, values and scales (fp16) of one token, read by attention; 16-bit queries."""
        form = FORMATS[self.format]
        codes = 2 * self.head_dim * form.bits / 8
        scales = {
            0: 0.0,
            1: 2 * 2.0,
            2: 2 * 4.0,
            3: 4.0 * (self.head_dim / self.key_group + self.head_dim / VALUE_GROUP),
        }
        return self.kv_heads * (codes + scales[form.kind])


@dataclass(frozen=True)
class Side:
    """Keys or values of all pages: codes [pages, page, kv_heads, packed]; scale and zero (fp16) by `Format.kind`:
    [pages, page, kv_heads, groups], or for keys of KIVI [pages, page / group, kv_heads, head_dim]."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor


@dataclass(frozen=True)
class Cache:
    """One layer: both sides, the page numbers of each sequence [batch, pages] and its tokens [batch], int32."""

    layout: Layout
    keys: Side
    values: Side
    table: torch.Tensor
    lengths: torch.Tensor


def make_cache(layout: Layout, lengths: list[int], pool_pages: int, like: torch.Tensor, seed: int = 0) -> Cache:
    """A cache of random numbers in the type and on the device of `like`; pages of a sequence are scattered."""
    per_sequence = [math.ceil(length / layout.page) for length in lengths]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(pool_pages, generator=generator, dtype=torch.int32)
    table = torch.zeros(len(lengths), max(per_sequence), dtype=torch.int32)
    used = 0
    for row, count in enumerate(per_sequence):
        table[row, :count] = order[used : used + count]
        used += count
    shape = (pool_pages, layout.page, layout.kv_heads, layout.head_dim)
    sides = [_side(layout, shape, like, seed + number, keys=number == 0) for number in (0, 1)]
    tokens = torch.tensor(lengths, dtype=torch.int32, device=like.device)
    return Cache(layout, sides[0], sides[1], table.to(like.device), tokens)


def _side(layout: Layout, shape: tuple[int, int, int, int], like: torch.Tensor, seed: int, keys: bool) -> Side:
    form, (pages, page, heads, dim) = FORMATS[layout.format], shape
    generator = torch.Generator(device=like.device).manual_seed(seed)

    def uniform(*of: int) -> torch.Tensor:
        return torch.rand(*of, generator=generator, device=like.device)

    if form.kind == 0:
        codes = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
        none = torch.zeros(1, device=like.device, dtype=torch.float16)
        return Side(codes, none, none)
    packed = (pages, page, heads, form.packed(dim))
    if form.codes == torch.float8_e4m3fn:
        codes = torch.randn(packed, generator=generator, device=like.device).to(torch.float8_e4m3fn)
    else:
        low, high = (-127, 128) if form.codes == torch.int8 else (0, 256)
        codes = torch.randint(low, high, packed, generator=generator, device=like.device).to(form.codes)
    grouped = (pages, page // layout.key_group, heads, dim) if keys else (pages, page, heads, dim // VALUE_GROUP)
    scales = grouped if form.kind == 3 else (pages, page, heads, 1)
    largest = {1: 64.0 if form.codes == torch.int8 else 1.0, 2: 8.0, 3: 1.5}[form.kind]
    scale = (0.5 + uniform(*scales)) / largest
    zero = -scale * largest * (0.9 + 0.2 * uniform(*scales))
    return Side(codes, scale.half(), zero.half())


def dequantised(side: Side, layout: Layout, keys: bool) -> torch.Tensor:
    """The numbers of a side, float64 [pages, page, kv_heads, head_dim]."""
    form, dim = FORMATS[layout.format], layout.head_dim
    codes = side.codes
    if form.bits < 8:
        shifts = torch.arange(0, 8, form.bits, device=codes.device, dtype=torch.uint8)
        codes = ((codes[..., None] >> shifts) & (2**form.bits - 1)).flatten(-2)
    numbers = codes.double()
    if form.kind == 0:
        return numbers
    scale, zero = side.scale.double(), side.zero.double()
    if form.kind == 3 and keys:
        scale, zero = (x.repeat_interleave(layout.key_group, dim=1) for x in (scale, zero))
    else:
        scale, zero = (x.repeat_interleave(dim // x.shape[-1], dim=-1) for x in (scale, zero))
    return numbers * scale + (zero if form.kind > 1 else 0.0)


def gathered(cache: Cache, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of one sequence in order, float64 [tokens, kv_heads, head_dim]."""
    tokens = int(cache.lengths[row])
    pages = cache.table[row, : math.ceil(tokens / cache.layout.page)].long()
    both = []
    for side, keys in ((cache.keys, True), (cache.values, False)):
        per_page = side.scale.shape[0] == side.codes.shape[0]
        part = Side(
            side.codes[pages],
            side.scale[pages] if per_page else side.scale,
            side.zero[pages] if per_page else side.zero,
        )
        both.append(dequantised(part, cache.layout, keys).flatten(0, 1)[:tokens])
    return both[0], both[1]


def attention_reference(queries: torch.Tensor, cache: Cache, row: int) -> torch.Tensor:
    """Attention of the last S tokens of a sequence, queries [S, heads, head_dim], causal; float64, same shape."""
    keys, values = gathered(cache, row)
    group = cache.layout.heads // cache.layout.kv_heads
    keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
    scores = torch.einsum("shd,thd->hst", queries.double(), keys) / math.sqrt(cache.layout.head_dim)
    count, tokens = queries.shape[0], keys.shape[0]
    seen = torch.arange(tokens, device=keys.device) <= torch.arange(tokens - count, tokens, device=keys.device)[:, None]
    weights = torch.softmax(scores.masked_fill(~seen, -math.inf), dim=-1)
    return torch.einsum("hst,thd->shd", weights, values)
