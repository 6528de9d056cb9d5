"""Which of a profile's kernel models charges which kernel of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hw_profiles.attention import MLA
from hw_profiles.cost_models import DecodeModel, GemmModel, PrefillModel
from hw_profiles.formats import Format
from hw_profiles.geometry import LayerSpec
from hw_profiles.profile import Profile

INPUT_BYTES: Mapping[str, float] = MappingProxyType({"fp8": 1, "int8": 1, "nvfp4": 0.5})
"""Bytes of an activation as a matrix product with weights of that format reads it; others are weight-only formats, whose
kernels read activations as they are. SOURCE: fp8 and int8 W8A8, nvfp4 W4A4: vLLM docs/features/quantization; int4 and
mxfp4 W4A16 (Marlin, and gpt-oss' Triton kernels on Hopper)."""


@dataclass(frozen=True)
class Kernels:
    """The models of one profile."""

    profile: Profile

    def gemm(self, form: Format) -> GemmModel:
        """Matrix products with weights of a format."""
        return self.profile.gemm

    def decode(self, layer: LayerSpec) -> DecodeModel:
        """Decode attention of a layer, KV cold in L2."""
        return self.profile.decode

    def decode_arithmetic_bytes(self, layer: LayerSpec) -> float:
        """Bytes of cache that could be read while a cached token is scored and summed by one new token; 0: no matter.

        Only MLA, whose heads share one latent, does enough FLOP per byte to be bound by them (hundreds; GQA: twice the
        group size at most). Estimate: at the rate of prefill attention. FlashMLA's authors state 660 TFLOP/s on an
        H800, whose peak is an H100's (deepseek-ai/FlashMLA, README), where prefill attention reaches about 680.
        """
        if not isinstance(layer.attention, MLA):
            return 0.0
        seconds = layer.attention.decode_flops_per_pair / self.prefill(layer).flops
        return seconds * self.decode(layer).bandwidth

    def prefill(self, layer: LayerSpec) -> PrefillModel:
        """Prefill attention of a layer."""
        return self.profile.prefill


def input_bytes(form: Format, base: Format) -> float:
    """Bytes per activation that a product with weights of a format reads; `base`: the activations' own format."""
    return INPUT_BYTES.get(form.name.split("_")[0], base.bits // 8)
