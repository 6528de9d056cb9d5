"""Which of a profile's kernel models charges which kernel of a layer, and what was assumed where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from hw_profiles import picks
from hw_profiles.attention import MLA
from hw_profiles.batch_effects import ImbalanceModel, MixedModel
from hw_profiles.cost_models import AllReduceModel, DecodeModel, GemmModel
from hw_profiles.formats import WEIGHT_FORMATS, Format
from hw_profiles.geometry import LayerSpec
from hw_profiles.picks import Pick
from hw_profiles.prefill_cost import PrefillModel
from hw_profiles.profile import Profile
from hw_profiles.schema import ProfileValue

Model = TypeVar("Model", GemmModel, DecodeModel, PrefillModel, AllReduceModel, MixedModel, ImbalanceModel)

INPUT_BYTES: Mapping[str, float] = MappingProxyType({"fp8": 1, "fp8_block": 1, "int8": 1, "nvfp4": 0.5, "w4a4": 0.5})
"""Bytes of an activation as a product with weights of a format reads it, on a GPU that does the format's arithmetic;
kernels of other (weight-only) formats read activations as they are. SOURCE: fp8 and int8 are W8A8, nvfp4 is W4A4, int4
and mxfp4 are W4A16: vLLM, docs/features/quantization (mxfp4: gpt-oss on Hopper); w4a4: QuaRot (arXiv 2404.00456)."""
LATENT_RATE = 0.85
"""FLOP rate of decode attention over an MLA latent, as a share of that of prefill attention. Estimate: up to 580
TFLOP/s on an H800 (deepseek-ai/FlashMLA, README), whose tensor cores are an H100's, where prefill attains 682."""


@dataclass(frozen=True)
class Latent:
    """Decode attention over an MLA latent.

    token_bytes: what is charged per cached token, the bytes read or as many as its arithmetic is worth.
    arithmetic: that is what bounds it.
    """

    model: DecodeModel
    token_bytes: float
    arithmetic: bool


class Kernels:
    """The models of one profile; remembers which were asked for.

    attention_share: of the HBM's rate that decode attention with KV heads reads at, in place of the profile's kernel.
    """

    def __init__(self, profile: Profile, attention_share: float | None = None) -> None:
        self.profile, self._attention_share = profile, attention_share
        self.values: dict[str, ProfileValue] = {}
        """Values of the models that were taken, by path; paths that the profile does not have are estimates."""
        self.estimates: list[str] = []
        """What is assumed where the profile has no kernel of the kind, one line each."""

    def gemm(self, form: Format) -> GemmModel:
        """Matrix products with weights of a format."""
        return self.take(picks.gemm(self.profile, kernel_format(form)))

    def experts(self, form: Format) -> GemmModel | None:
        """The fused experts of a layer, None if unknown.

        The model covers the products, the activation between them and the sum of the experts' outputs. Its bytes are
        the weights of the experts that are read, and inputs and outputs of both products for every row; m, n, k of its
        table are rows per expert that is read, how many those are, and hidden x width.
        """
        pick = picks.moe(self.profile, kernel_format(form))
        return self.take(pick) if pick.group.startswith("kernels.moe_") else None

    def input_bytes(self, form: Format, base: Format) -> float:
        """Bytes per activation that a product with weights of a format reads; `base`: the activations' own format."""
        name = kernel_format(form)
        native = f"peaks.{picks.PEAKS.get(name)}" in self.profile.entries or self._measured(name)
        return INPUT_BYTES[name] if native and name in INPUT_BYTES else base.bits // 8

    def decode(self, layer: LayerSpec) -> DecodeModel:
        """Decode attention of a layer with KV heads, KV cold in L2."""
        a = layer.attention
        if isinstance(a, MLA):
            raise TypeError("MLA has a model of its own")
        model = self.take(picks.decode(self.profile, layer.kv.name, a.heads // a.kv_heads, a.head_dim, a.kv_heads))
        if self._attention_share is None:
            return model
        return replace(model, bandwidth=self._attention_share * self.profile.hbm_bandwidth, residual=None)

    def latent(self, layer: LayerSpec) -> Latent:
        """Decode attention of an MLA layer.

        All heads of the rank score one latent: hundreds of FLOP per byte read (GQA: twice the group size), so reading
        and arithmetic overlap, both grow with the context, and the slower of the two sets the time. A measured kernel
        has both in its rate.
        """
        rate = LATENT_RATE * self.prefill(layer).flops
        seconds = layer.attention.decode_flops_per_pair / rate
        pick = picks.mla_decode(self.profile, layer.kv.name, layer.attention.heads)
        if pick is not None:
            model = self.take(pick)
            return Latent(model, layer.entry_bytes, seconds * model.bandwidth > 0.9 * layer.entry_bytes)
        plain = picks.decode(self.profile, layer.kv.name, 1, 128, 8)
        note = (
            "decode attention over a latent reads like that over KV heads, "
            f"and computes at {LATENT_RATE:.0%} of the rate of prefill attention"
        )
        model = self.take(replace(plain, model=replace(plain.model, residual=None), estimate=note))
        worth = seconds * model.bandwidth
        return Latent(model, max(worth, layer.entry_bytes), worth > layer.entry_bytes)

    def prefill(self, layer: LayerSpec) -> PrefillModel:
        """Prefill attention of a layer."""
        a = layer.attention
        if isinstance(a, MLA):
            pick = picks.mla_prefill(self.profile, layer.kv.name, a.heads)
            return self.take(pick or picks.prefill(self.profile, layer.kv.name, a.nope_dim + a.rope_dim, a.heads))
        return self.take(picks.prefill(self.profile, layer.kv.name, a.head_dim, a.heads, a.kv_heads))

    def mixed(self, layer: LayerSpec) -> MixedModel | None:
        """What prompts and decoding sequences in one launch cost beyond launches of their own; None if unknown."""
        pick = None if isinstance(layer.attention, MLA) else picks.mixed(self.profile)
        return None if pick is None else self.take(pick)

    def imbalance(self, layer: LayerSpec) -> ImbalanceModel | None:
        """What decoding costs when one sequence is longer than the others; None if unknown."""
        pick = None if isinstance(layer.attention, MLA) else picks.imbalance(self.profile)
        return None if pick is None else self.take(pick)

    def take(self, pick: Pick[Model]) -> Model:
        """The model of a pick, which is noted as used."""
        self.values.update((value.path, value) for value in pick.values)
        if pick.estimate:
            self.note(pick.estimate)
        return pick.model

    def note(self, text: str) -> None:
        """Remember an assumption."""
        if text not in self.estimates:
            self.estimates.append(text)

    def _measured(self, name: str) -> bool:
        return f"kernels.gemm_{name}.t0" in self.profile.entries


def kernel_format(form: Format) -> str:
    """The format (of WEIGHT_FORMATS) whose kernels multiply weights of `form`; a checkpoint may have its own groups.

    Weights in fp8 with other blocks take kernels of fp8_block; grouped int4 and int8 weights are unpacked, as int4.
    """
    if form.name in WEIGHT_FORMATS:
        return form.name
    return "fp8_block" if form.name.startswith("fp8") else "int4"
