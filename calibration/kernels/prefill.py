"""Prefill attention: a chunk of new tokens of one sequence after a cached prefix, causal, over a paged bf16 cache."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from calibration.kernels.decode import LOG2E
from calibration.kernels.kv_cache import Cache, Layout, attention_reference, make_cache
from calibration.kernels.portable import dot
from calibration.kernels.spec import Build, Check, Place, relative_error

QUERIES, TOKENS = 128, 64
"""Tile of new tokens, and tokens of context per iteration."""
OPTIONS = {"num_warps": 8, "num_stages": 3}
SMALL = {"QUERIES": 64}, {"num_warps": 8, "num_stages": 3}
"""For GPUs without wgmma or tcgen05, where the large tile spills."""
LARGE_TILE = (9, 10)
"""Compute capabilities (major) that have them: Hopper, and Blackwell for data centres; not 12, Blackwell's other cards.
"""


# not compiled again for every kind of number that a chunk or a prefix can have
@triton.jit(do_not_specialize=["new", "prefix"])
def prefill_tile(
    queries,
    keys,
    values,
    table,
    out,
    scale,
    new,
    prefix,
    heads,
    HKV: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    PAGE: tl.constexpr,
    QUERIES: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """QUERIES new tokens of one query head; token i sees the prefix and new tokens up to itself."""
    # the last tiles have the most to read: they go first
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    kv_head = head // GROUP
    i = tile * QUERIES + tl.arange(0, QUERIES)
    d = tl.arange(0, D)
    at = (i[:, None] * heads + head) * D + d[None, :]
    q = tl.load(queries + at, mask=(i < new)[:, None], other=0.0)
    top = tl.full([QUERIES], -float("inf"), tl.float32)
    weight = tl.zeros([QUERIES], tl.float32)
    result = tl.zeros([QUERIES, D], tl.float32)
    end = tl.minimum(prefix + (tile + 1) * QUERIES, prefix + new)
    for start in range(0, end, TOKENS):
        token = start + tl.arange(0, TOKENS)
        inside = token < end
        page = tl.load(table + token // PAGE, mask=inside, other=0).to(tl.int64)
        row = ((page * PAGE + token % PAGE) * HKV + kv_head) * D
        k = tl.load(keys + row[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        score = dot(q, tl.trans(k)) * scale
        score = tl.where(token[None, :] <= (prefix + i)[:, None], score, -float("inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp2(top - higher)
        p = tl.exp2(score - higher[:, None])
        v = tl.load(values + row[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        result = result * shrink[:, None] + dot(p.to(v.dtype), v)
        weight = weight * shrink + tl.sum(p, 1)
        top = higher
    result = result / weight[:, None]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=(i < new)[:, None])


def attend(queries: torch.Tensor, cache: Cache, row: int, prefix: int, out: torch.Tensor) -> None:
    """Attention of queries [new, heads, head_dim] of sequence `row`, after `prefix` tokens of a bf16 cache."""
    new, heads, dim = queries.shape
    tile, options = tuning(queries.device)
    grid = (triton.cdiv(new, tile["QUERIES"]), heads)
    prefill_tile[grid](
        *(queries, cache.keys.codes, cache.values.codes, cache.table[row], out, LOG2E / math.sqrt(dim)),
        *(new, prefix, heads),
        **constants(cache.layout) | tile,
        **options,
    )


def tuning(device: torch.device) -> tuple[dict[str, int], dict[str, int]]:
    """(constants, options) for a device."""
    if device.type == "cuda" and torch.version.cuda and torch.cuda.get_device_capability(device)[0] in LARGE_TILE:
        return {"QUERIES": QUERIES}, OPTIONS
    return SMALL


def constants(layout: Layout) -> dict[str, int]:
    """What `prefill_tile` is compiled for, with the large tile."""
    return {
        "HKV": layout.kv_heads,
        "GROUP": layout.heads // layout.kv_heads,
        "D": layout.head_dim,
        "PAGE": layout.page,
        "QUERIES": QUERIES,
        "TOKENS": TOKENS,
    }


def _check(new: int, prefix: int) -> Check:
    def run(place: Place) -> float:
        layout = Layout(32, 8) if place.full_size else Layout(4, 2, 64)
        times = 16 if place.full_size else 1
        pages = math.ceil((new + prefix) * times / layout.page) + 3
        queries = place.random(new * times, layout.heads, layout.head_dim, seed=5)
        cache = make_cache(layout, [(new + prefix) * times], pages, queries)
        out = place.poison(*queries.shape)
        attend(queries, cache, 0, prefix * times, out)
        return relative_error(out, attention_reference(queries, cache, 0))

    return Check("prefill_prefix" if prefix else "prefill", run)


CHECKS = (_check(80, 0), _check(41, 53))
_SIGNATURE = {"queries": "*bf16", "keys": "*bf16", "values": "*bf16", "table": "*i32", "out": "*bf16"}
_SIGNATURE |= {"scale": "fp32", "new": "i32", "prefix": "i32", "heads": "i32"}
BUILDS = (
    Build(
        "prefill",
        prefill_tile,
        _SIGNATURE,
        constants(Layout(32, 8)),
        OPTIONS,
        targets=("cuda:90", "cuda:100"),
        must={"cuda:90": ("wide_access", "wgmma"), "cuda:100": ("wide_access", "tcgen05")},
    ),
    Build(
        "prefill_small",
        prefill_tile,
        _SIGNATURE,
        constants(Layout(32, 8)) | SMALL[0],
        SMALL[1],
        targets=("cuda:80", "hip:gfx942"),
        must={"cuda": ("wide_access", "tensor_cores"), "hip:gfx942": ("tensor_cores",)},
    ),
)
