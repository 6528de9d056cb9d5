"""QuaRot: 4-bit KV without outliers, as keys and queries are rotated first."""

from __future__ import annotations

import math
from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.formats import Format
from hw_profiles.lines import CONTEXT, constant
from policies.kv_format.stored import as_it_goes, kernel_share, needs_heads, quantised, vector_share
from policies.options import switch, whole
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.scores import ACTIVATION_BYTES

SCALE_BITS = 32
"""An fp16 scale and an fp16 zero point per group."""
PACKED_BYTES = 0.5
"""Per value of a 4-bit activation; its scale, one per token, is too small to count."""
UNPACKED_BYTES = 8
"""Per value of a product's output: written in int32 instead of 16 bits, read, and written in 16 bits by a kernel."""
SOURCE = "spcl/QuaRot, quarot/transformers/kv_cache.py"


class QuaRot(SequencePolicy):
    """4-bit KV, a scale and a zero point per head and token, behind Hadamard rotations: 68 bytes for 256 at 128 a head.

    Bytes per head and token: d bits/8 + 4 d/group for keys, and as many for values. Queries and keys are rotated after
    their positions are set (d log2 d additions a head), in kernels of their own, and new tokens are quantised and
    packed; the attention kernel (FlashInfer's, for paged 4-bit KV) unpacks.

    bits         4 as published; 2, 3, 6, 8, or 16: rotated only
    group        values that share a scale; by default a head's vector
    activations  true: inputs of a layer's matrix products are rotated and quantised too, and outputs dequantised, by
                 kernels of their own (of a gated MLP), as in QuaRot's W4A4. The weights and the rate of 4-bit products
                 are the engine's (`engine.weights_dtype: w4a4`)
    efficiency   bandwidth of the attention kernel over the packed cache, as a share of the plain kernel's. By table 15
                 681 GB/s over 4-bit and 720 over 16-bit KV (RTX 3090, 64 heads, what 16 sequences more add)

    Source: S. Ashkboos et al., "QuaRot", NeurIPS 2024 (arXiv 2404.00456), sections 4 and 5, appendix A.10; repository
    spcl/QuaRot. Kernels per step: table 15 at batch 1, where 4 bits take 0.32 ms more a layer than 16, and 0.08 with
    rotations: some 13 and 3 launches from Python.
    """

    assumptions = (
        "quarot: kernels of other GPUs are as those of an RTX 3090 beside plain ones (its tables 14 and 15)",
    )

    def __init__(
        self,
        *,
        bits: int = 4,
        group: int | None = None,
        activations: bool = False,
        efficiency: float = 0.95,
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
        packs = share < 1
        rotated = (layer.heads + layer.kv_heads) * layer.head_dim
        packed = layer.token_bytes * (1.0 + share) if packs else 0.0
        nbytes = 2 * rotated * ACTIVATION_BYTES + packed
        flops = rotated * math.log2(layer.head_dim)
        launches = 3 + (13 if packs else 0)
        return Work("rotate and quantise KV", constant(nbytes), constant(flops), launches=launches, source=SOURCE)

    def _inputs(self, layer: LayerView) -> Work:
        """Of one token: inputs of the products quantised, two of them rotated first, and their outputs dequantised."""
        if not layer.ffn_width:
            raise InputError("quarot: activations need a dense feed-forward layer, and this layer has none")
        rotated = (layer.heads * layer.head_dim, layer.ffn_width)
        quantised_values = 2 * layer.hidden + sum(rotated)
        outputs = (layer.heads + 2 * layer.kv_heads) * layer.head_dim + 2 * (layer.hidden + layer.ffn_width)
        nbytes = quantised_values * (ACTIVATION_BYTES + PACKED_BYTES) + 2 * ACTIVATION_BYTES * sum(rotated)
        nbytes += outputs * UNPACKED_BYTES
        flops = sum(width * math.log2(width) for width in rotated)
        source = "spcl/QuaRot, e2e/quantized_llama/modeling_llama.py"
        kernel = "rotate and quantise inputs, dequantise outputs"
        return Work(kernel, constant(nbytes), constant(flops), launches=13, source=source)

    @staticmethod
    def _of_prompt(work: Work) -> Work:
        """The same for every token of a prompt."""
        return replace(work, nbytes=CONTEXT * work.nbytes.base, flops=CONTEXT * work.flops.base)
