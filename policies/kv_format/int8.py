"""8-bit integers with a scale and a zero point per head and token."""

from __future__ import annotations

from hw_profiles.formats import KV_FORMATS
from policies.kv_format.stored import FUSED, as_it_goes, kernel_share, quantised, vector_share
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy


class Int8(SequencePolicy):
    """Keys and values in 8-bit integers, a scale and a zero point per head and token: 132 bytes for 256 at 128 a head.

    Bytes per head and token: d + 4 for keys, and as many for values (asymmetric, fp16 scale and zero point). The kernel
    that writes the cache quantises, and a fused attention kernel unpacks: no kernel is added, and attention is assumed
    to reach the bandwidth that it reaches over the engine's own format.

    efficiency  bandwidth of the attention kernel over the packed cache, as a share of the plain kernel's

    Source: LMDeploy, docs/en/quantization/kv_quant.md.
    """

    assumptions = (f"int8: {FUSED}",)

    def __init__(self, *, efficiency: float = 1.0) -> None:
        self._efficiency = kernel_share(efficiency)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, its keys and values in one byte each, and four per vector."""
        share = vector_share(layer, KV_FORMATS["int8"])
        form = quantised(layer, before, "int8", key=share, value=share, efficiency=self._efficiency)
        return as_it_goes(before, form)
