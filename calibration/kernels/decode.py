"""Decode attention over a paged KV cache, with dequantisation inside: one query per sequence, the context split.

Each program takes one sequence, one KV head (with all query heads that share it) and one part of the context; a second
kernel merges the parts. SOURCE of the scheme: Flash-Decoding (Dao et al., 2023).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from calibration.kernels.kv_cache import FORMATS, VALUE_GROUP, Cache, Layout, attention_reference, make_cache
from calibration.kernels.kv_tiles import load_keys, load_values
from calibration.kernels.portable import ceil_div, dot
from calibration.kernels.spec import Build, Check, Place, relative_error

TOKENS = 64
"""Tokens per iteration."""
LEAST_ROWS = 16
"""Rows of the smallest tile that tensor cores multiply: smaller groups of query heads are padded to it."""
MOST_PARTS = 64
LOG2E = 1.4426950408889634


# not compiled again for every width that a table can have
@triton.jit(do_not_specialize=["table_width"])
def decode_parts(
    queries,
    key_codes,
    key_scale,
    key_zero,
    value_codes,
    value_scale,
    value_zero,
    table,
    lengths,
    part_out,
    part_lse,
    scale,
    heads,
    table_width,
    HKV: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    BITS: tl.constexpr,
    KIND: tl.constexpr,
    KEY_GROUP: tl.constexpr,
    VALUE_GROUP: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """One part: normalised output and log2 of the sum of weights, `scale` in units of log2(e)."""
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    part = tl.program_id(2)
    parts = tl.num_programs(2)
    length = tl.load(lengths + sequence)
    step = ceil_div(ceil_div(length, parts), TOKENS) * TOKENS
    first = part * step
    last = tl.minimum(first + step, length)
    member = tl.arange(0, ROWS)
    real = member < GROUP
    d = tl.arange(0, D)
    query_row = sequence * heads + head * GROUP + member
    q = tl.load(queries + query_row[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    top = tl.full([ROWS], -float("inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, D], tl.float32)
    for start in range(first, last, TOKENS):
        token = start + tl.arange(0, TOKENS)
        inside = token < last
        page = tl.load(table + sequence * table_width + token // PAGE, mask=inside, other=0).to(tl.int64)
        slot = token % PAGE
        group_start = start + tl.arange(0, TOKENS // KEY_GROUP) * KEY_GROUP
        group_page = tl.load(table + sequence * table_width + group_start // PAGE, mask=group_start < last, other=0)
        k = load_keys(
            *(key_codes, key_scale, key_zero, page, slot, head, inside, q),
            *(group_page.to(tl.int64), group_start % PAGE, HKV, D, PAGE, BITS, KIND, KEY_GROUP),
        )
        score = tl.where(inside[None, :], dot(q, tl.trans(k)) * scale, -float("inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp2(top - higher)
        p = tl.exp2(score - higher[:, None])
        v = load_values(
            *(value_codes, value_scale, value_zero, page, slot, head, inside, q),
            *(HKV, D, PAGE, BITS, KIND, VALUE_GROUP),
        )
        out = out * shrink[:, None] + dot(p.to(v.dtype), v)
        weight = weight * shrink + tl.sum(p, 1)
        top = higher
    some = last > first
    row = query_row * parts + part
    out = tl.where(some, out / tl.where(some, weight, 1.0)[:, None], 0.0)
    lse = tl.where(some, top + tl.log2(tl.where(some, weight, 1.0)), -float("inf"))
    tl.store(part_out + row[:, None] * D + d[None, :], out, mask=real[:, None])
    tl.store(part_lse + row, lse, mask=real)


@triton.jit
def merge_parts(part_out, part_lse, out, D: tl.constexpr, PARTS: tl.constexpr):
    """Weighted mean of the parts of one query head of one sequence."""
    row = tl.program_id(0)
    part = tl.arange(0, PARTS)
    d = tl.arange(0, D)
    lse = tl.load(part_lse + row * PARTS + part)
    weight = tl.exp2(lse - tl.max(lse, 0))
    tile = tl.load(part_out + (row * PARTS + part)[:, None] * D + d[None, :])
    merged = tl.sum(tile * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(out + row * D + d, merged.to(out.dtype.element_ty))


def parts_for(batch: int, kv_heads: int, longest: int, sms: int) -> int:
    """Parts of the context: a power of two that gives about four programs per SM, of at least four iterations each."""
    wanted = max(1, 4 * sms // (batch * kv_heads))
    longest_useful = max(1, longest // (4 * TOKENS))
    return min(MOST_PARTS, 1 << (min(wanted, longest_useful).bit_length() - 1))


def scratch(batch: int, heads: int, dim: int, parts: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(outputs, log sums) of the parts, fp32."""
    shape = (batch, heads, parts)
    return torch.empty(*shape, dim, device=device), torch.empty(shape, device=device)


def attend(
    queries: torch.Tensor, cache: Cache, out: torch.Tensor, work: tuple[torch.Tensor, torch.Tensor], warps: int = 4
) -> None:
    """Attention of queries [batch, heads, head_dim] over the cache into `out`; `work` from `scratch`."""
    layout, (batch, heads, dim) = cache.layout, queries.shape
    part_out, part_lse = work
    parts = part_lse.shape[2]
    keys, values = cache.keys, cache.values
    decode_parts[(batch, layout.kv_heads, parts)](
        *(queries, keys.codes, keys.scale, keys.zero, values.codes, values.scale, values.zero),
        *(cache.table, cache.lengths, part_out, part_lse, LOG2E / math.sqrt(dim), heads, cache.table.shape[1]),
        **constants(layout),
        num_warps=warps,
        num_stages=3,
    )
    merge(work, out)


def merge(work: tuple[torch.Tensor, torch.Tensor], out: torch.Tensor) -> None:
    """The parts of `work` into out [batch, heads, numbers]."""
    batch, heads, parts = work[1].shape
    warps = merge_warps(out.shape[2], parts)
    merge_parts[(batch * heads,)](*work, out, D=out.shape[2], PARTS=parts, num_warps=warps)


def merge_warps(dim: int, parts: int) -> int:
    """Warps that hold a tile of dim x parts numbers in registers: 64 a thread."""
    return min(16, max(4, dim * parts // (64 * 32)))


def constants(layout: Layout, tokens: int = TOKENS) -> dict[str, int]:
    """What `decode_parts` is compiled for."""
    form, group = FORMATS[layout.format], layout.heads // layout.kv_heads
    return {
        "HKV": layout.kv_heads,
        "GROUP": group,
        "ROWS": max(LEAST_ROWS, 1 << (group - 1).bit_length()),
        "D": layout.head_dim,
        "PAGE": layout.page,
        "BITS": form.bits,
        "KIND": form.kind,
        "KEY_GROUP": layout.key_group,
        "VALUE_GROUP": VALUE_GROUP,
        "TOKENS": tokens,
    }


def check(place: Place, layout: Layout) -> float:
    """Ragged lengths, one shorter than a part, over scattered pages."""
    lengths, parts = ([2050, 33, 700], 4) if place.full_size else ([100, 7], 2)
    pages = sum(math.ceil(length / layout.page) for length in lengths) + 5
    queries = place.random(len(lengths), layout.heads, layout.head_dim, seed=7)
    cache = make_cache(layout, lengths, pages, queries)
    out, work = place.poison(*queries.shape), scratch(len(lengths), layout.heads, layout.head_dim, parts, place.device)
    attend(queries, cache, out, work)
    reference = torch.cat([attention_reference(queries[i : i + 1], cache, i) for i in range(len(lengths))])
    return relative_error(out, reference)


def _check(name: str, heads: int, kv_heads: int, page: int = 16, form: str = "bf16") -> Check:
    def run(place: Place) -> float:
        few, dim = (1, 128) if place.full_size else (max(1, kv_heads // 2), 64)
        return check(place, Layout(heads // few, kv_heads // few, dim, page, form))

    needs = (8, 9) if form == "fp8" else (0, 0)
    dtypes = ("f32", "f16", "bf16") if form == "bf16" else ("bf16",)
    return Check(name, run, dtypes=dtypes, needs=needs)


CHECKS = (
    _check("decode_gqa4", 32, 8),
    _check("decode_gqa8", 64, 8),
    _check("decode_mha", 32, 32),
    _check("decode_page64", 32, 8, page=64),
    *(_check(f"decode_{form}", 32, 8, form=form) for form in ("int8", "fp8", "int4", "int2")),
    _check("decode_int2_page64", 32, 8, page=64, form="int2"),
)

_CODES = {"bf16": "*bf16", "int8": "*i8", "fp8": "*fp8e4nv", "int4": "*u8", "int2": "*u8"}


def _build(name: str, layout: Layout) -> Build:
    codes = _CODES[layout.format]
    signature = {"queries": "*bf16"}
    for side in ("key", "value"):
        signature |= {f"{side}_codes": codes, f"{side}_scale": "*fp16", f"{side}_zero": "*fp16"}
    signature |= {"table": "*i32", "lengths": "*i32", "part_out": "*fp32", "part_lse": "*fp32"}
    signature |= {"scale": "fp32", "heads": "i32", "table_width": "i32"}
    # fp8 e4m3 needs sm_89; on gfx942 its bits mean other numbers
    targets = ("cuda:90", "cuda:100") if layout.format == "fp8" else ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
    must = {"cuda": ("wide_access", "tensor_cores"), "hip:gfx942": ("tensor_cores",)}
    options = {"num_warps": 4, "num_stages": 3}
    return Build(name, decode_parts, signature, constants(layout), options, targets=targets, must=must)


BUILDS = (
    _build("decode_gqa4", Layout(32, 8)),
    _build("decode_gqa8", Layout(64, 8)),
    _build("decode_mha", Layout(32, 32)),
    _build("decode_page64", Layout(32, 8, page=64)),
    *(_build(f"decode_{form}", Layout(32, 8, format=form)) for form in ("int8", "fp8", "int4", "int2")),
    *(
        Build(
            name,
            merge_parts,
            {"part_out": "*fp32", "part_lse": "*fp32", "out": "*bf16"},
            {"D": dim, "PARTS": MOST_PARTS},
            {"num_warps": merge_warps(dim, MOST_PARTS)},
        )
        for name, dim in (("decode_merge", 128), ("mla_merge", 512))
    ),
)
