"""8-bit floating point: half the bytes, nothing else."""

from __future__ import annotations

from hw_profiles.formats import KV_FORMATS
from policies.kv_format.stored import as_it_goes, kernel_share, quantised, vector_share
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy


class FP8(SequencePolicy):
    """Keys and values in 8-bit floating point, one scale per tensor: half the bytes of 16-bit KV.

    The kernel that writes the cache converts, and attention reads the 8-bit values: no kernel is added, and attention
    is assumed to reach the bandwidth that it reaches over the engine's own format. `engine.kv_dtype: fp8` is the same
    cache with the attention kernel that the profile measured over it, where it has one; this policy can be combined
    with those that thin out keys or tokens.

    efficiency  bandwidth of the attention kernel over the packed cache, as a share of the plain kernel's

    Source: vLLM, docs/features/quantization/quantized_kvcache.md.
    """

    assumptions = ("fp8: attention reads the 8-bit cache at the bandwidth of the 16-bit one",)

    def __init__(self, *, efficiency: float = 1.0) -> None:
        self._efficiency = kernel_share(efficiency)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, its keys and values in one byte each."""
        share = vector_share(layer, KV_FORMATS["fp8"])
        form = quantised(layer, before, "fp8", key=share, value=share, efficiency=self._efficiency)
        return as_it_goes(before, form)
