"""The kernels of a layer on whatever device the tensors are: Triton on a GPU, torch on the CPU."""

from __future__ import annotations

import math

import torch

from calibration.kernels.kv_cache import Cache


def decode(
    queries: torch.Tensor, cache: Cache, out: torch.Tensor, work: tuple[torch.Tensor, torch.Tensor] | None
) -> None:
    """One query per sequence: queries and out [batch, heads, head_dim]; `work` from `decode.scratch` on a GPU."""
    if queries.is_cuda:
        from calibration.kernels import decode as kernel

        assert work is not None
        kernel.attend(queries, cache, out, work)
        return
    for row in range(queries.shape[0]):
        out[row] = _one(queries[row : row + 1], cache, row)[0]


def prefill(queries: torch.Tensor, cache: Cache, row: int, out: torch.Tensor) -> None:
    """The last tokens of sequence `row`: queries and out [new, heads, head_dim]."""
    if queries.is_cuda:
        from calibration.kernels import prefill as kernel

        kernel.attend(queries, cache, row, out)
        return
    out.copy_(_one(queries, cache, row))


def _one(queries: torch.Tensor, cache: Cache, row: int) -> torch.Tensor:
    tokens, new = int(cache.lengths[row]), queries.shape[0]
    pages = cache.table[row, : math.ceil(tokens / cache.layout.page)].long()
    keys, values = (side.codes[pages].flatten(0, 1)[:tokens].transpose(0, 1) for side in (cache.keys, cache.values))
    mask = None
    if new > 1:
        seen = torch.arange(tokens - new, tokens)[:, None]
        mask = torch.arange(tokens)[None, :] <= seen
    result = torch.nn.functional.scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, enable_gqa=True
    )
    return result[0].transpose(0, 1)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> None:
    """Rows of x [tokens, width], normalised, into y."""
    from calibration.kernels import elementwise as kernels

    if x.is_cuda:
        kernels.rms_norm(x, weight, y)
    else:
        y.copy_(kernels.rms_norm_reference(x, weight))


def silu_gate(x: torch.Tensor, y: torch.Tensor) -> None:
    """y [tokens, width] from x [tokens, 2 * width]."""
    from calibration.kernels import elementwise as kernels

    if x.is_cuda:
        kernels.silu_gate(x, y)
    else:
        y.copy_(kernels.silu_gate_reference(x))


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> None:
    """Rotate x [tokens, heads, head_dim] in place."""
    from calibration.kernels import elementwise as kernels

    if x.is_cuda:
        kernels.rotate(x, cosine, sine)
    else:
        x.copy_(kernels.rotate_reference(x, cosine.to(x.dtype), sine.to(x.dtype)))


def write_kv(new: torch.Tensor, pages: torch.Tensor, slots: torch.Tensor) -> None:
    """Write new [tokens, kv_heads, head_dim] to the slots of pages [pages, page, kv_heads, head_dim]."""
    from calibration.kernels import elementwise as kernels

    if new.is_cuda:
        kernels.write_kv(new, pages, slots)
    else:
        pages.view(-1, *new.shape[1:])[slots] = new
