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
        out[row] = _one(queries[row : row + 1], cache, row, int(cache.lengths[row]))[0]


def prefill(queries: torch.Tensor, cache: Cache, row: int, prefix: int, out: torch.Tensor) -> None:
    """New tokens of sequence `row` after `prefix` that are there: queries and out [new, heads, head_dim]."""
    if queries.is_cuda:
        from calibration.kernels import prefill as kernel

        kernel.attend(queries, cache, row, prefix, out)
        return
    out.copy_(_one(queries, cache, row, prefix + queries.shape[0]))


def _one(queries: torch.Tensor, cache: Cache, row: int, tokens: int) -> torch.Tensor:
    """Attention of the last queries of one sequence of `tokens` tokens, on the CPU."""
    new, heads, dim = queries.shape
    pages = cache.table[row, : math.ceil(tokens / cache.layout.page)].long()
    keys, values = (side.codes[pages].flatten(0, 1)[:tokens].transpose(0, 1) for side in (cache.keys, cache.values))
    if new == 1:  # several times faster than torch's own for a single query
        grouped = queries.view(keys.shape[0], -1, dim)
        scores = torch.matmul(grouped, keys.transpose(1, 2)).float() / math.sqrt(dim)
        return torch.matmul(torch.softmax(scores, dim=-1).to(values.dtype), values).view(1, heads, dim)
    mask = torch.arange(tokens)[None, :] <= torch.arange(tokens - new, tokens)[:, None]
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
