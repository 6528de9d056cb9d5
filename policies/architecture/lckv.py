"""Layer-Condensed KV Cache: all layers but a few read the keys and values of the top one."""

from __future__ import annotations

from hw_profiles.model_spec import ModelSpec
from policies.architecture.base import Architecture
from policies.architecture.sharing import PASSES, shared
from policies.options import whole


class LayerCondensed(Architecture):
    """All layers read the top layer's keys and values, but `warmup` ones at both ends: KV of warmup + 1 layers.

    The warm-up layers are half at the bottom, half at the top (one more at the bottom where odd). Prompts are computed
    in `passes` passes. warmup >= layers - 1 leaves the model as it is.
    SOURCE: Wu and Tu, Layer-Condensed KV Cache (arXiv 2405.10637) sections 2.1 to 2.3, table 1; whyNLP/LCKV README
    (layer_types 0_20_20_..._20_21 for warmup 2).
    """

    def __init__(self, warmup: int = 2, passes: int = PASSES) -> None:
        self.warmup = whole("warmup", warmup, 0, 1 << 16)
        self.passes = whole("passes", passes, 1, 1000)

    def apply(self, model: ModelSpec) -> ModelSpec:
        """As Architecture.apply."""
        above = self.warmup // 2
        below = self.warmup - above
        top = model.layers - 1 - above
        sources = [top if below <= i < top else i for i in range(model.layers)]
        return shared(model, sources, f"lckv{self.warmup}", self.passes)
