"""Cross-Layer Attention: neighbouring layers share the keys and values of the lowest of them."""

from __future__ import annotations

from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture
from policies.architecture.sharing import shared
from policies.options import whole


class CrossLayerAttention(Architecture):
    """Groups of `share` layers read the keys and values of their lowest: KV of ceil(layers / share) layers.

    Bytes per token: 2 ceil(L / share) heads x width x element bytes. What decode attention reads stays as it is.
    SOURCE: Brandon et al., Reducing Transformer Key-Value Cache Size with Cross-Layer Attention (arXiv 2405.12981)
    section 3; share 2 with one or few KV heads is what the authors recommend.
    """

    def __init__(self, share: int = 2) -> None:
        self.share = whole("share", share, 1, 1 << 16)

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        sources = [i - i % self.share for i in range(model.layers)]
        return shared(model, sources, f"cla{self.share}")
