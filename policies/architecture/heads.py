"""Fewer KV heads: grouped-query and multi-query attention."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.attention import GQA
from hw_profiles.errors import InputError
from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture, heads_of, layers_of, with_layers
from policies.options import whole


class GroupedQuery(Architecture):
    """Every layer has `kv_heads` KV heads, each for a group of query heads.

    Values per token and layer: 2 kv_heads x width. Reads, memory and copies shrink alike. SOURCE: Ainslie et al., GQA
    (arXiv 2305.13245) section 2.
    """

    def __init__(self, kv_heads: int = 8) -> None:
        self.kv_heads = whole("kv_heads", kv_heads, 1, 1 << 16)

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        found = [heads_of(layer, model, "gqa") for layer in layers_of(model)]
        if all(attention.kv_heads == self.kv_heads for attention in found):
            return model
        made = [
            replace(layer, attention=self._fewer(attention))
            for layer, attention in zip(layers_of(model), found, strict=True)
        ]
        return replace(with_layers(model, made, f"gqa{self.kv_heads}"), kv_heads=self.kv_heads)

    def _fewer(self, attention: GQA) -> GQA:
        if attention.heads % self.kv_heads:
            allowed = f"a divisor of the {attention.heads} query heads"
            raise InputError("", path="kv_heads", found=self.kv_heads, allowed=allowed)
        return replace(attention, kv_heads=self.kv_heads)


class MultiQuery(GroupedQuery):
    """One KV head for all query heads of a layer.

    SOURCE: Shazeer, Fast Transformer Decoding (arXiv 1911.02150).
    """

    def __init__(self) -> None:
        super().__init__(1)
