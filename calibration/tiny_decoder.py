"""A decoder of random weights that is called as Hugging Face's are: to try the recorder without a model's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace

import torch

Past = tuple[tuple[torch.Tensor, torch.Tensor], ...]
SHARPNESS = 4.0
"""Of attention: random weights alone would spread it evenly."""


class TinyDecoder:
    """Attention layers with grouped queries and no positions, so that what is attended follows from the tokens."""

    def __init__(
        self, *, layers: int = 2, heads: int = 4, kv_heads: int = 2, vocabulary: int = 97, seed: int = 0
    ) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, 16
        width = heads * self.head_dim

        def matrix(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(rows, columns, generator=draws) / math.sqrt(rows)

        self.embedding = torch.randn(vocabulary, width, generator=draws)
        joined = (heads + 2 * kv_heads) * self.head_dim
        self.projections = [matrix(width, joined) for _ in range(layers)]
        self.outputs = [matrix(width, width) for _ in range(layers)]

    def parameters(self) -> Iterator[torch.Tensor]:
        """All weights."""
        return iter([self.embedding, *self.projections, *self.outputs])

    def __call__(
        self,
        input_ids: torch.Tensor,
        past_key_values: Past | None = None,
        use_cache: bool = True,
        output_attentions: bool = False,
    ) -> SimpleNamespace:
        """input_ids [1, tokens] after those of `past_key_values`; attentions are [1, heads, tokens, all tokens]."""
        hidden = self.embedding[input_ids]
        past, attentions = [], []
        for layer, (projection, output) in enumerate(zip(self.projections, self.outputs, strict=True)):
            before = past_key_values[layer] if past_key_values else None
            mixed, kept, attention = self._attend(_normed(hidden) @ projection, before)
            hidden = hidden + mixed @ output
            past.append(kept)
            attentions.append(attention)
        return SimpleNamespace(
            logits=_normed(hidden) @ self.embedding.t(),
            past_key_values=tuple(past) if use_cache else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def _attend(
        self, joined: torch.Tensor, before: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        parts = joined.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        queries, keys, values = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        if before is not None:
            keys, values = torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)
        group = self.heads // self.kv_heads
        wide_keys, wide_values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
        scores = SHARPNESS * queries @ wide_keys.transpose(2, 3) / math.sqrt(self.head_dim)
        new, tokens = scores.shape[2:]
        future = torch.ones(new, tokens, dtype=torch.bool).triu(tokens - new + 1)
        attention = scores.masked_fill(future, -math.inf).softmax(dim=-1)
        return (attention @ wide_values).transpose(1, 2).flatten(2), (keys, values), attention


def _normed(hidden: torch.Tensor) -> torch.Tensor:
    return hidden / hidden.square().mean(dim=-1, keepdim=True).sqrt()
