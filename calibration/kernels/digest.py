"""Selecting pages by digests: smallest and largest key of a page per channel, and an upper bound of its scores.

SOURCE: Quest (arXiv 2406.10774) section 3: a query's score of a page is bounded by sum over channels of
max(q * smallest, q * largest). The pages with the highest bounds are taken (torch.topk).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.spec import EXACT, Build, Check, Place, mismatches, relative_error

PAGES, OPTIONS = 16, {"num_warps": 4}
"""Pages scored per program."""


@triton.jit
def build_digest(keys, low, high, HKV: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr):
    """One page and KV head."""
    page = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    d = tl.arange(0, D)
    token = tl.arange(0, PAGE)
    tile = tl.load(keys + ((page * PAGE + token)[:, None] * HKV + head) * D + d[None, :])
    at = (page * HKV + head) * D + d
    tl.store(low + at, tl.min(tile, 0))
    tl.store(high + at, tl.max(tile, 0))


@triton.jit
def score_pages(
    queries,
    low,
    high,
    table,
    scores,
    count,
    heads,
    HKV: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    PAGES: tl.constexpr,
):
    """PAGES pages of one sequence and KV head: the largest bound of its GROUP query heads."""
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    i = tl.program_id(2) * PAGES + tl.arange(0, PAGES)
    real = i < count
    d = tl.arange(0, D)
    page = tl.load(table + sequence * count + i, mask=real, other=0).to(tl.int64)
    at = (page * HKV + head)[:, None] * D + d[None, :]
    smallest = tl.load(low + at, mask=real[:, None], other=0.0).to(tl.float32)
    largest = tl.load(high + at, mask=real[:, None], other=0.0).to(tl.float32)
    best = tl.full([PAGES], -float("inf"), tl.float32)
    for member in tl.static_range(GROUP):
        q = tl.load(queries + (sequence * heads + head * GROUP + member) * D + d).to(tl.float32)[None, :]
        best = tl.maximum(best, tl.sum(tl.maximum(q * smallest, q * largest), 1))
    tl.store(scores + (sequence * HKV + head) * count + i, best, mask=real)


def build(keys: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
    """Digests [pages, kv_heads, head_dim] of keys [pages, page, kv_heads, head_dim]."""
    count, page, kv_heads, d = keys.shape
    build_digest[(count, kv_heads)](keys, low, high, HKV=kv_heads, D=d, PAGE=page, **OPTIONS)


def score(
    queries: torch.Tensor, low: torch.Tensor, high: torch.Tensor, table: torch.Tensor, scores: torch.Tensor
) -> None:
    """Bounds [batch, kv_heads, pages] of queries [batch, heads, head_dim] for pages `table` [batch, pages] int32."""
    (batch, heads, d), (_, kv_heads, count) = queries.shape, scores.shape
    grid = (batch, kv_heads, triton.cdiv(count, PAGES))
    sizes = {"HKV": kv_heads, "GROUP": heads // kv_heads, "D": d, "PAGES": PAGES}
    score_pages[grid](queries, low, high, table, scores, count, heads, **sizes, **OPTIONS)


def score_reference(queries: torch.Tensor, low: torch.Tensor, high: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """What `score` computes, in the type of its arguments."""
    kv_heads, pages = low.shape[1], table.long()
    q = queries.unflatten(1, (kv_heads, -1))[:, :, :, None]
    smallest, largest = (x[pages].transpose(1, 2)[:, :, None] for x in (low, high))
    return torch.maximum(q * smallest, q * largest).sum(-1).amax(2)


def check_build(place: Place) -> float:
    """Share of numbers that differ."""
    keys = place.random(20, 16, 2, 64)
    low, high = place.poison(20, 2, 64), place.poison(20, 2, 64)
    build(keys, low, high)
    return max(mismatches(low, keys.amin(1)), mismatches(high, keys.amax(1)))


def check_score(place: Place) -> float:
    """Against torch in float64, with a number of pages that fills no program."""
    low, high = place.random(60, 2, 64) - 1, place.random(60, 2, 64, seed=1) + 1
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    table = order[:42].view(2, 21).contiguous().to(place.device)
    queries, scores = place.random(2, 8, 64, seed=3), place.poison(2, 2, 21, dtype=torch.float32)
    score(queries, low, high, table, scores)
    return relative_error(scores, score_reference(queries.double(), low.double(), high.double(), table))


CHECKS = (Check("digest_build", check_build, EXACT), Check("digest_score", check_score))
_WIDE = {"cuda": ("wide_access",)}
BUILDS = (
    Build(
        "digest_build",
        build_digest,
        {"keys": "*bf16", "low": "*bf16", "high": "*bf16"},
        {"HKV": 8, "D": 128, "PAGE": 16},
        OPTIONS,
        must=_WIDE,
    ),
    Build(
        "digest_score",
        score_pages,
        {"queries": "*bf16", "low": "*bf16", "high": "*bf16", "table": "*i32", "scores": "*fp32"}
        | {"count": "i32", "heads": "i32"},
        {"HKV": 8, "GROUP": 4, "D": 128, "PAGES": PAGES},
        OPTIONS,
        must=_WIDE,
    ),
)
