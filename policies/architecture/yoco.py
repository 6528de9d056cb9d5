"""You Only Cache Once: a lower half that sees a window, and an upper half that shares one cache of everything."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.cadence import Cadence
from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture, heads_of, layers_of, renamed, with_layers
from policies.options import whole


class YouOnlyCacheOnce(Architecture):
    """Lower layers slide over `window` tokens; the upper half reads one global cache, and skips prompts.

    KV: one layer's per token, and the windows. The first layer of the upper half makes the cache (and is charged over
    the prompt as a whole, where the paper's projects keys and values alone: one layer too much); those above it run for
    sampled tokens only. SOURCE: Sun et al., You Only Cache Once (arXiv 2405.05254) sections 2 and 3.1 (window 1,024, as
    many layers in both halves, prefill exits early).
    """

    def __init__(self, window: int = 1024) -> None:
        self.window = whole("window", window, 1, 1 << 30)

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        half, made = model.layers // 2, []
        for i, layer in enumerate(layers_of(model)):
            attention = heads_of(layer, model, "yoco")
            if i < half:
                made.append(replace(layer, attention=replace(attention, window=self.window)))
            elif i == half:
                made.append(replace(layer, attention=replace(attention, window=None)))
            else:
                reading = replace(layer, attention=replace(attention, window=None, own_kv=False))
                made.append(replace(renamed(reading, {"qkv": ("q",)}), cadence=Cadence(skips_prompt=True)))
        sources = tuple(min(i, half) for i in range(model.layers))
        return replace(with_layers(model, made, f"yoco{self.window}"), kv_sources=sources)
