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
"""Bytes of an activation as a product with weights of that format reads it; kernels of other (weight-only) formats read
activations as they are. SOURCE: fp8 and int8 are W8A8, nvfp4 is W4A4, int4 and mxfp4 are W4A16: vLLM,
docs/features/quantization (mxfp4: gpt-oss on Hopper)."""
LATENT_RATE = 0.85
"""FLOP rate of decode attention over an MLA latent, as a share of that of prefill attention. Estimate: up to 580
TFLOP/s on an H800 (deepseek-ai/FlashMLA, README), whose tensor cores are an H100's, where prefill attains 682."""


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
        group size at most).
        """
        if not isinstance(layer.attention, MLA):
            return 0.0
        seconds = layer.attention.decode_flops_per_pair / (LATENT_RATE * self.prefill(layer).flops)
        return seconds * self.decode(layer).bandwidth

    def prefill(self, layer: LayerSpec) -> PrefillModel:
        """Prefill attention of a layer."""
        return self.profile.prefill


def input_bytes(form: Format, base: Format) -> float:
    """Bytes per activation that a product with weights of a format reads; `base`: the activations' own format."""
    return INPUT_BYTES.get(form.name.split("_")[0], base.bits // 8)
