"""Tiles of keys and values from a paged cache in any format of `kv_cache`, dequantised as they are loaded."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_codes(codes, row, mask, D: tl.constexpr, BITS: tl.constexpr):
    """[tokens, D] codes of rows of a side as fp32 (unpacked numbers as stored); row: index of token and head."""
    if BITS >= 8:
        tile = tl.load(codes + row[:, None] * D + tl.arange(0, D)[None, :], mask=mask[:, None], other=0.0)
        return tile if BITS == 16 else tile.to(tl.float32)
    else:
        PACKED: tl.constexpr = D * BITS // 8
        lane = tl.arange(0, PACKED)
        packed = tl.load(codes + row[:, None] * PACKED + lane[None, :], mask=mask[:, None], other=0)
        if BITS == 4:
            return tl.interleave(packed & 15, packed >> 4).to(tl.float32)
        else:
            even = tl.interleave(packed & 3, (packed >> 4) & 3)
            odd = tl.interleave((packed >> 2) & 3, packed >> 6)
            return tl.interleave(even, odd).to(tl.float32)


@triton.jit
def load_keys(
    codes,
    scale,
    zero,
    page,
    slot,
    head,
    mask,
    like,
    first_page,
    first_slot,
    HKV: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    BITS: tl.constexpr,
    KIND: tl.constexpr,
    GROUP: tl.constexpr,
):
    """[tokens, D] keys in the type of `like`; first_*: page and slot of the first token of each GROUP tokens."""
    row = (page * PAGE + slot) * HKV + head
    tile = load_codes(codes, row, mask, D, BITS)
    if KIND == 3:
        GROUPS: tl.constexpr = tile.shape[0] // GROUP
        group = ((first_page * (PAGE // GROUP) + first_slot // GROUP) * HKV + head) * D
        at = group[:, None] + tl.arange(0, D)[None, :]
        factor, offset = tl.load(scale + at).to(tl.float32), tl.load(zero + at).to(tl.float32)
        grouped = tl.reshape(tile, [GROUPS, GROUP, D]) * factor[:, None, :] + offset[:, None, :]
        tile = tl.reshape(grouped, [GROUPS * GROUP, D])
    else:
        tile = scale_rows(tile, scale, zero, row, mask, KIND)
    return tile.to(like.dtype)


@triton.jit
def load_values(
    codes,
    scale,
    zero,
    page,
    slot,
    head,
    mask,
    like,
    HKV: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    BITS: tl.constexpr,
    KIND: tl.constexpr,
    GROUP: tl.constexpr,
):
    """[tokens, D] values in the type of `like`; GROUP: channels that share a scale of KIVI."""
    row = (page * PAGE + slot) * HKV + head
    tile = load_codes(codes, row, mask, D, BITS)
    if KIND == 3:
        TOKENS: tl.constexpr = tile.shape[0]
        at = (row * (D // GROUP))[:, None] + tl.arange(0, D // GROUP)[None, :]
        factor = tl.load(scale + at, mask=mask[:, None], other=0.0).to(tl.float32)
        offset = tl.load(zero + at, mask=mask[:, None], other=0.0).to(tl.float32)
        grouped = tl.reshape(tile, [TOKENS, D // GROUP, GROUP]) * factor[:, :, None] + offset[:, :, None]
        tile = tl.reshape(grouped, [TOKENS, D])
    else:
        tile = scale_rows(tile, scale, zero, row, mask, KIND)
    return tile.to(like.dtype)


@triton.jit
def scale_rows(tile, scale, zero, row, mask, KIND: tl.constexpr):
    """Codes x scale (+ zero) of one token and head per row."""
    if KIND == 0:
        return tile
    else:
        tile = tile * tl.load(scale + row, mask=mask, other=0.0).to(tl.float32)[:, None]
        if KIND == 2:
            tile += tl.load(zero + row, mask=mask, other=0.0).to(tl.float32)[:, None]
        return tile
