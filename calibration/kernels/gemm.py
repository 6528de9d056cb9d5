"""Matrix product by Triton.

The library's product (cuBLAS by torch) is what engines use and what profiles are fitted to; this one is
timed beside it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.portable import dot
from calibration.kernels.spec import Build, Check, Place, relative_error

TILE = {"ROWS": 128, "COLUMNS": 128, "DEPTH": 64}
OPTIONS = {"num_warps": 8, "num_stages": 3}
GFX942 = {"num_warps": 8, "num_stages": 2}
"""64 KB of local data share hold two stages."""


@triton.jit
def gemm_tile(x, weight, y, m, n, k, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):
    """One tile of y [m, n] = x [m, k] times the transpose of weight [n, k]."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, k, DEPTH):
        d = start + tl.arange(0, DEPTH)
        in_a = (i < m)[:, None] & (d < k)[None, :]
        a = tl.load(x + i[:, None].to(tl.int64) * k + d[None, :], mask=in_a, other=0.0)
        in_b = (j < n)[:, None] & (d < k)[None, :]
        b = tl.load(weight + j[:, None].to(tl.int64) * k + d[None, :], mask=in_b, other=0.0)
        total += dot(a, tl.trans(b))
    at = i[:, None].to(tl.int64) * n + j[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=(i < m)[:, None] & (j < n)[None, :])


def multiply(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
    """y [m, n] = x [m, k] @ weight [n, k].T by the Triton kernel."""
    (m, k), n = x.shape, weight.shape[0]
    tile = TILE if x.is_cuda else {"ROWS": 32, "COLUMNS": 32, "DEPTH": 32}
    options = GFX942 if torch.version.hip else OPTIONS
    grid = (triton.cdiv(m, tile["ROWS"]), triton.cdiv(n, tile["COLUMNS"]))
    gemm_tile[grid](x, weight, y, m, n, k, **tile, **options)


def check_gemm(place: Place) -> float:
    """Sizes that fill no tile."""
    m, n, k = (300, 520, 1040) if place.full_size else (40, 72, 96)
    x, weight, y = place.random(m, k), place.random(n, k, seed=1), place.poison(m, n)
    multiply(x, weight, y)
    return relative_error(y, x.double() @ weight.double().T)


CHECKS = (Check("gemm", check_gemm, dtypes=("f16", "bf16")),)
_SIGNATURE = {"x": "*bf16", "weight": "*bf16", "y": "*bf16", "m": "i32", "n": "i32", "k": "i32"}
BUILDS = (
    Build(
        "gemm",
        gemm_tile,
        _SIGNATURE,
        TILE,
        OPTIONS,
        whole=("n", "k"),
        targets=("cuda:80", "cuda:90", "cuda:100"),
        must={
            "cuda": ("wide_access", "tensor_cores"),
            "cuda:90": ("wgmma",),
            "cuda:100": ("tcgen05",),
        },
    ),
    Build(
        "gemm_gfx942",
        gemm_tile,
        _SIGNATURE,
        TILE,
        GFX942,
        whole=("n", "k"),
        targets=("hip:gfx942",),
        must={"hip:gfx942": ("wide_access", "tensor_cores")},
    ),
)
