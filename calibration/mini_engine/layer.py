"""One transformer layer over a paged cache: decode rows and prefill chunks of one step, every kernel a real one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from calibration.kernels.kv_cache import Cache, Layout
from calibration.suite import ops
from calibration.suite.lab import Lab


@dataclass(frozen=True)
class LayerShape:
    """Widths of one layer, and tokens per page of its cache."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    page: int

    @property
    def layout(self) -> Layout:
        """Its cache."""
        return Layout(self.heads, self.kv_heads, self.head_dim, self.page)

    @property
    def qkv(self) -> int:
        """Columns of the product that makes queries, keys and values."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def weight_numbers(self) -> int:
        """Weights of the four products."""
        return self.hidden * (self.qkv + self.heads * self.head_dim + 3 * self.ffn)


@dataclass(frozen=True)
class LayerWeights:
    """Weights [out, in] of the four products, and the gains of the two norms."""

    qkv: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    norms: torch.Tensor

    @classmethod
    def random(cls, lab: Lab, shape: LayerShape) -> LayerWeights:
        """Random weights that keep hidden numbers near 1."""

        def matrix(rows: int, columns: int) -> torch.Tensor:
            return lab.random(rows, columns).mul_(1 / math.sqrt(columns))

        return cls(
            qkv=matrix(shape.qkv, shape.hidden),
            out=matrix(shape.hidden, shape.heads * shape.head_dim),
            gate_up=matrix(2 * shape.ffn, shape.hidden),
            down=matrix(shape.hidden, shape.ffn),
            norms=torch.ones(2, shape.hidden, dtype=lab.dtype, device=lab.device),
        )


@dataclass(frozen=True)
class Chunk:
    """New tokens of one sequence: rows `first` to `last` of a step, `prefix` tokens of row `sequence` before them."""

    first: int
    last: int
    sequence: int
    prefix: int


@dataclass(frozen=True)
class Buffers:
    """What a layer writes on its way; rows for the most tokens of a step. cosine and sine: [tokens, head_dim / 2]."""

    normed: torch.Tensor
    qkv: torch.Tensor
    attended: torch.Tensor
    gate_up: torch.Tensor
    gated: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor
    slots: torch.Tensor
    work: tuple[torch.Tensor, torch.Tensor] | None


def layer_buffers(lab: Lab, shape: LayerShape, cache: Cache, tokens: int = 0) -> Buffers:
    """Buffers for steps of up to `tokens` tokens (default: one per sequence) over the tables of `cache`."""
    batch = cache.table.shape[0]
    rows, work = max(tokens, batch), None
    if not lab.cpu:
        from calibration.kernels import decode

        longest = cache.table.shape[1] * shape.page
        parts = decode.parts_for(batch, shape.kv_heads, longest, lab.facts.sms)
        work = decode.scratch(batch, shape.heads, shape.head_dim, parts, lab.device)

    def empty(width: int) -> torch.Tensor:
        return torch.empty(rows, width, dtype=lab.dtype, device=lab.device)

    angles = torch.zeros(rows, shape.head_dim // 2, device=lab.device)
    return Buffers(
        normed=empty(shape.hidden),
        qkv=empty(shape.qkv),
        attended=empty(shape.heads * shape.head_dim),
        gate_up=empty(2 * shape.ffn),
        gated=empty(shape.ffn),
        cosine=angles.cos(),
        sine=angles.sin(),
        slots=torch.arange(rows, device=lab.device),
        work=work,
    )


def decode_layer(hidden: torch.Tensor, weights: LayerWeights, cache: Cache, buffers: Buffers) -> None:
    """One token of every sequence; adds the layer's output to hidden [batch, hidden]."""
    run_layer(hidden, weights, cache, buffers, decodes=hidden.shape[0], chunks=())


def run_layer(
    hidden: torch.Tensor,
    weights: LayerWeights,
    cache: Cache,
    buffers: Buffers,
    decodes: int,
    chunks: tuple[Chunk, ...],
) -> None:
    """A step: hidden [tokens, hidden], of which the first `decodes` rows are one token each of the cache's first
    sequences, the rest chunks. New keys and values go to `buffers.slots` of the cache before attention reads it."""
    tokens, layout = hidden.shape[0], cache.layout
    normed, qkv, attended = (x[:tokens] for x in (buffers.normed, buffers.qkv, buffers.attended))
    ops.rms_norm(hidden, weights.norms[0], normed)
    torch.mm(normed, weights.qkv.t(), out=qkv)
    width, kv_width = layout.heads * layout.head_dim, layout.kv_heads * layout.head_dim
    parts = qkv.split([width, kv_width, kv_width], dim=1)
    queries, keys, values = (part.unflatten(1, (-1, layout.head_dim)).contiguous() for part in parts)
    for x in (queries, keys):
        ops.rotate(x, buffers.cosine[:tokens], buffers.sine[:tokens])
    slots = buffers.slots[:tokens]
    ops.write_kv(keys, cache.keys.codes, slots)
    ops.write_kv(values, cache.values.codes, slots)
    out = attended.view(tokens, layout.heads, layout.head_dim)
    if decodes:
        ops.decode(queries[:decodes], cache, out[:decodes], buffers.work)
    for chunk in chunks:
        rows = slice(chunk.first, chunk.last)
        ops.prefill(queries[rows], cache, chunk.sequence, chunk.prefix, out[rows])
    hidden.addmm_(attended, weights.out.t())
    ops.rms_norm(hidden, weights.norms[1], normed)
    gate_up, gated = buffers.gate_up[:tokens], buffers.gated[:tokens]
    torch.mm(normed, weights.gate_up.t(), out=gate_up)
    ops.silu_gate(gate_up, gated)
    hidden.addmm_(gated, weights.down.t())
