"""The glue of a transformer layer: RMS norm, SiLU times gate, rotary embedding, writing keys and values to pages."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibration.kernels.spec import EXACT, Build, Check, Place, mismatches, relative_error

EPSILON = 1e-5


@triton.jit
def rms_norm_rows(x, weight, y, width, epsilon, BLOCK: tl.constexpr):
    """One row: x / sqrt(mean(x^2) + epsilon) * weight."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    tile = tl.load(x + row * width + i, mask=i < width, other=0.0).to(tl.float32)
    scale = 1 / tl.sqrt(tl.sum(tile * tile, 0) / width + epsilon)
    gain = tl.load(weight + i, mask=i < width, other=0.0).to(tl.float32)
    tl.store(y + row * width + i, (tile * scale * gain).to(y.dtype.element_ty), mask=i < width)


@triton.jit
def silu_gate_rows(x, y, width, BLOCK: tl.constexpr):
    """A part of one row: y = silu(x[:width]) * x[width:]."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(x + row * 2 * width + i, mask=i < width, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + i, mask=i < width, other=0.0).to(tl.float32)
    tl.store(y + row * width + i, (gate * tl.sigmoid(gate) * up).to(y.dtype.element_ty), mask=i < width)


@triton.jit
def rotate_heads(x, cosine, sine, HEADS: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr):
    """All heads of one token, in place: (a, b) -> (a cos - b sin, b cos + a sin), a and b the halves of a head."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, ROWS)
    i = tl.arange(0, HALF)
    c = tl.load(cosine + token * HALF + i).to(tl.float32)[None, :]
    s = tl.load(sine + token * HALF + i).to(tl.float32)[None, :]
    at = x + (token * HEADS + head)[:, None] * (2 * HALF) + i[None, :]
    real = (head < HEADS)[:, None]
    a = tl.load(at, mask=real, other=0.0).to(tl.float32)
    b = tl.load(at + HALF, mask=real, other=0.0).to(tl.float32)
    tl.store(at, (a * c - b * s).to(x.dtype.element_ty), mask=real)
    tl.store(at + HALF, (b * c + a * s).to(x.dtype.element_ty), mask=real)


@triton.jit
def write_tokens(new, pages, slots, NUMBERS: tl.constexpr):
    """Write the NUMBERS numbers of one new token to its slot (page x page size + place) of `pages`."""
    token = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, NUMBERS)
    slot = tl.load(slots + token)
    tl.store(pages + slot * NUMBERS + i, tl.load(new + token * NUMBERS + i))


def rms_norm(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
    """Normalise the rows of x [tokens, width] into y."""
    width = x.shape[1]
    block = triton.next_power_of_2(width)
    rms_norm_rows[(x.shape[0],)](x, weight, y, width, EPSILON, BLOCK=block, num_warps=8 if block >= 4096 else 4)


def silu_gate(x: torch.Tensor, y: torch.Tensor, block: int = 2048) -> None:
    """y [tokens, width] from x [tokens, 2 * width]."""
    tokens, width = y.shape
    silu_gate_rows[(tokens, triton.cdiv(width, block))](x, y, width, BLOCK=block, num_warps=4)


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> None:
    """Rotate x [tokens, heads, head_dim] in place by the angles of each token, [tokens, head_dim / 2]."""
    tokens, heads, dim = x.shape
    rows = triton.next_power_of_2(heads)
    rotate_heads[(tokens,)](x, cosine, sine, HEADS=heads, ROWS=rows, HALF=dim // 2, num_warps=4)


def write_kv(new: torch.Tensor, pages: torch.Tensor, slots: torch.Tensor) -> None:
    """Write new [tokens, kv_heads, head_dim] to pages [pages, page, kv_heads, head_dim] at `slots` (int64)."""
    write_tokens[(new.shape[0],)](new, pages, slots, NUMBERS=new[0].numel(), num_warps=4)


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What `rms_norm` computes, in the type of x."""
    return torch.nn.functional.rms_norm(x, (x.shape[1],), weight, EPSILON)


def silu_gate_reference(x: torch.Tensor) -> torch.Tensor:
    """What `silu_gate` computes, in the type of x."""
    gate, up = x.chunk(2, dim=1)
    return torch.nn.functional.silu(gate) * up


def rotate_reference(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """What `rotate` computes, in the type of x."""
    (a, b), c, s = x.chunk(2, dim=2), cosine[:, None], sine[:, None]
    return torch.cat([a * c - b * s, b * c + a * s], dim=2)


def _width(place: Place) -> int:
    return 4096 if place.full_size else 96


def check_rms_norm(place: Place) -> float:
    """Against torch in float64."""
    x, weight = place.random(5, _width(place)), place.random(_width(place), seed=1)
    y = place.poison(*x.shape)
    rms_norm(x, weight, y)
    return relative_error(y, rms_norm_reference(x.double(), weight.double()))


def check_silu_gate(place: Place) -> float:
    """Against torch in float64."""
    x, y = place.random(5, 2 * _width(place)), place.poison(5, _width(place))
    silu_gate(x, y, block=2048 if place.full_size else 64)
    return relative_error(y, silu_gate_reference(x.double()))


def check_rotate(place: Place) -> float:
    """Against torch in float64."""
    x, angle = place.random(5, 6, 64), place.random(5, 32, seed=1).float()
    cosine, sine = angle.cos(), angle.sin()
    expected = rotate_reference(x.double(), cosine.double(), sine.double())
    rotate(x, cosine, sine)
    return relative_error(x, expected)


def check_write_kv(place: Place) -> float:
    """Share of numbers that are not where they belong, those that were to stay 0 included."""
    pages, new = torch.zeros(4, 8, 2, 64, dtype=place.dtype, device=place.device), place.random(5, 2, 64)
    slots = torch.tensor([31, 0, 7, 8, 20], device=place.device)
    expected = pages.clone()
    expected.view(32, 2, 64)[slots] = new
    write_kv(new, pages, slots)
    return mismatches(pages, expected)


CHECKS = (
    Check("rms_norm", check_rms_norm),
    Check("silu_gate", check_silu_gate),
    Check("rotary", check_rotate),
    Check("kv_write", check_write_kv, EXACT, dtypes=("bf16",)),
)
_WIDE = {"cuda": ("wide_access",)}
BUILDS = (
    Build(
        "rms_norm",
        rms_norm_rows,
        {"x": "*bf16", "weight": "*bf16", "y": "*bf16", "width": "i32", "epsilon": "fp32"},
        {"BLOCK": 4096},
        {"num_warps": 8},
        whole=("width",),
        must=_WIDE,
    ),
    Build(
        "silu_gate",
        silu_gate_rows,
        {"x": "*bf16", "y": "*bf16", "width": "i32"},
        {"BLOCK": 2048},
        {"num_warps": 4},
        whole=("width",),
        must=_WIDE,
    ),
    Build(
        "rotary",
        rotate_heads,
        {"x": "*bf16", "cosine": "*fp32", "sine": "*fp32"},
        {"HEADS": 32, "ROWS": 32, "HALF": 64},
        {"num_warps": 4},
        must=_WIDE,
    ),
    Build(
        "kv_write",
        write_tokens,
        {"new": "*bf16", "pages": "*bf16", "slots": "*i64"},
        {"NUMBERS": 1024},
        {"num_warps": 4},
        must=_WIDE,
    ),
)
