"""QuaRot: 4-bit KV without outliers, as keys and queries are rotated first."""

from __future__ import annotations

import math
from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.formats import Format
from hw_profiles.lines import CONTEXT, constant
from policies.kv_format.stored import FUSED, as_it_goes, kernel_share, needs_heads, quantised, vector_share
from policies.options import switch, whole
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import ACTIVATION_BYTES

SCALE_BITS = 32
"""An fp16 scale and an fp16 zero point per group."""
PACKED_BYTES = 0.5
"""Per value of a 4-bit activation; its scale, one per token, is too small to count."""
SOURCE = "spcl/QuaRot, quarot/transformers/kv_cache.py"


class QuaRot(SequencePolicy):
    """4-bit KV, a scale and a zero point per head and token, behind Hadamard rotations: 68 bytes for 256 at 128 a head.

    Bytes per head and token: d bits/8 + 4 d/group for keys, and as many for values. Queries and keys are rotated after
    their positions are set (d log2 d additions a head), in kernels of their own, and new tokens are quantised and
    packed; the attention kernel (FlashInfer's, for paged 4-bit KV) unpacks.

    bits         4 as published; 2, 3, 6, 8, or 16: rotated only
    group        values that share a scale; by default a head's vector
    activations  true: inputs of the four matrix products of a layer are rotated and quantised too, as in QuaRot's W4A4.
                 The 4-bit weights and the rate of 4-bit products are the engine's (`engine.weights_dtype`)
    efficiency   bandwidth of the attention kernel over the packed cache, as a share of the plain kernel's

    Source: S. Ashkboos et al., "QuaRot", NeurIPS 2024 (arXiv 2404.00456), sections 4 and 5; repository spcl/QuaRot.
    That the attention kernel reaches the bandwidth of the plain one is assumed.
    """

    assumptions = (f"quarot: {FUSED}",)

    def __init__(
        self,
        *,
        bits: int = 4,
        group: int | None = None,
        activations: bool = False,
        efficiency: float = 1.0,
    ) -> None:
        self._efficiency = kernel_share(efficiency)
        if isinstance(bits, bool) or bits not in (2, 3, 4, 6, 8, 16):
            raise ValueError(f"bits: found {bits!r}, expected one of 2, 3, 4, 6, 8, 16")
        self._number = Format(f"int{bits}", bits, whole("group", group or 0, 0, 1024), scale_bits=SCALE_BITS)
        self._activations = switch("activations", activations)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, its keys and values in `bits` bits, and kernels that rotate."""
        needs_heads(layer, "quarot", "it rotates queries and keys of a head, and a latent is shared by all heads")
        plan, share = before, 1.0
        if self._number.bits < 16:
            share = vector_share(layer, self._number)
            form = quantised(layer, before, "quarot", key=share, value=share, efficiency=self._efficiency)
            plan = as_it_goes(before, form)
        works = [self._rotate(layer, share)]
        if self._activations:
            works.append(self._inputs(layer))
        return replace(
            plan,
            works=(*plan.works, *works),
            prompt_works=(*plan.prompt_works, *(self._of_prompt(work) for work in works)),
        )

    def _rotate(self, layer: LayerView, share: float) -> Work:
        """Of one token: queries and keys read and written, then keys and values read and written packed."""
        packs = layer.stores and share < 1
        rotated = (layer.heads + (layer.kv_heads if layer.stores else 0)) * layer.head_dim
        packed = layer.token_bytes * (1.0 + share) if packs else 0.0
        nbytes = 2 * rotated * ACTIVATION_BYTES + packed
        flops = rotated * math.log2(layer.head_dim)
        launches = 2 + (4 if packs else 0)
        return Work("rotate and quantise KV", constant(nbytes), constant(flops), launches=launches, source=SOURCE)

    def _inputs(self, layer: LayerView) -> Work:
        """Of one token: the inputs of the four products quantised, two of them rotated first."""
        if not layer.ffn_width:
            raise InputError("quarot: activations need a dense feed-forward layer, and this layer has none")
        rotated = (layer.heads * layer.head_dim, layer.ffn_width)
        quantised_values = 2 * layer.hidden + sum(rotated)
        nbytes = quantised_values * (ACTIVATION_BYTES + PACKED_BYTES) + 2 * ACTIVATION_BYTES * sum(rotated)
        flops = sum(width * math.log2(width) for width in rotated)
        source = "spcl/QuaRot, e2e/quantized_llama/modeling_llama.py"
        return Work("rotate and quantise inputs", constant(nbytes), constant(flops), launches=6, source=source)

    @staticmethod
    def _of_prompt(work: Work) -> Work:
        """The same for every token of a prompt."""
        return replace(work, nbytes=CONTEXT * work.nbytes.base, flops=CONTEXT * work.flops.base)
