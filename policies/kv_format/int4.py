"""4-bit integers in groups along a head's vector: FlexGen's compressed cache."""

from __future__ import annotations

from hw_profiles.formats import Format
from policies.kv_format.stored import FUSED, as_it_goes, kernel_share, packing, quantised, vector_share
from policies.options import switch, whole
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy

SCALE_BITS = 32
"""An fp16 minimum and an fp16 scale per group."""

UNPACKING = 6 / 4 + 1 + 4
"""HBM traffic of FlexGen's unpacking, as a multiple of the 16-bit bytes: nibbles shifted and masked into bytes (read,
written and read, once for each half of a byte) and written as 16 bits; then scaled and shifted in place (read and
written). Counted in compression.py (TorchCompressedDevice.decompress), without what strided accesses add."""


class Int4(SequencePolicy):
    """Keys and values in 4-bit integers, group-wise along a head's vector: 4.5 bits per value in groups of 64.

    Bytes per head and token: d/2 + 4 ceil(d / group) for keys, and as many for values (asymmetric: an fp16 minimum and
    an fp16 scale per group).

    group   values that share a scale
    fused   true: the kernel that writes the cache quantises and the attention kernel unpacks, as engines for serving
            do (LMDeploy). false: as FlexGen does it, new tokens are packed by kernels of their own, and every step
            unpacks what it attends to 16 bits before plain attention reads it: HBM traffic rises although the cache
            (and what crosses a link) shrinks
    efficiency  bandwidth of the attention kernel over the packed cache, as a share of the plain kernel's

    Source: Y. Sheng et al., "FlexGen" (arXiv 2303.06865), section 5; FMInference/FlexGen, flexgen/compression.py and
    the CompressionConfig of flexgen/flex_opt.py (4 bits, groups of 64 along the head, asymmetric).
    """

    def __init__(self, *, group: int = 64, fused: bool = True, efficiency: float = 1.0) -> None:
        self._number = Format("int4", 4, whole("group", group, 2, 1024), scale_bits=SCALE_BITS)
        self._fused = switch("fused", fused)
        self._efficiency = kernel_share(efficiency)
        self.assumptions = (f"int4: {FUSED}",) if fused else ()

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan, its keys and values in half a byte each, and four bytes per group."""
        share = vector_share(layer, self._number)
        # unpacking reads the packed tokens itself; plain attention then reads what it made
        beside = 0.0 if self._fused else UNPACKING + 1.0 - share
        form = quantised(layer, before, "int4", key=share, value=share, beside=beside, efficiency=self._efficiency)
        plan = as_it_goes(before, form)
        if self._fused:
            return plan
        return packing(layer, plan, share, 4, "FlexGen, compression.py: minimum and maximum, scaling, packing")
