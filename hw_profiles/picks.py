"""Which kernel group of a profile stands for a kernel, and what is assumed where the profile has none of its kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from hw_profiles.batch_effects import ImbalanceModel, MixedModel
from hw_profiles.cost_models import AllReduceModel, DecodeModel, GemmModel
from hw_profiles.errors import InputError
from hw_profiles.formats import KV_FORMATS, WEIGHT_FORMATS
from hw_profiles.kernel_groups import BASE_GROUP, BASE_KV_HEADS, decode_key, mla_decode_key, prefill_key
from hw_profiles.prefill_cost import BASE_HEADS, PLAIN, PrefillMemory, PrefillModel
from hw_profiles.schema import ProfileValue

if TYPE_CHECKING:
    from hw_profiles.profile import Profile

Model = TypeVar("Model", GemmModel, DecodeModel, PrefillModel, AllReduceModel, MixedModel, ImbalanceModel)

SAME: Mapping[str, str] = MappingProxyType({"fp16": "bf16", "fp32": "bf16"})
"""Number formats whose kernels are taken for the same (fp32 moves twice the bytes; no model is served in it)."""
PEAKS: Mapping[str, str] = MappingProxyType(
    {"fp8": "fp8", "fp8_block": "fp8", "int8": "int8", "mxfp4": "fp4", "nvfp4": "fp4", "w4a4": "int4"}
)
"""The datasheet peak of the arithmetic with weights of a format. int4 weights are multiplied in bf16 (AWQ, Marlin)."""
NEAR: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"fp8_block": ("fp8",), "mxfp4": ("nvfp4", "int4"), "nvfp4": ("mxfp4",), "int8": ("fp8",)}
)
"""Formats whose measured kernels stand for another's, before anything is scaled."""
ATTAINED: Mapping[str, float] = MappingProxyType({"w4a4": 0.56})
"""Share of a rate scaled by datasheet peaks that products of a format were measured at. SOURCE: w4a4, QuaRot (arXiv
2404.00456), table 14 (linear layers on an RTX 3090, quantising and dequantising taken off at 840 GB/s): 320 TOPS in the
median of 36 layers, 260 to 380, of 568; FP16 there attains 76 TFLOP/s of 71."""
MEMORY = tuple(field.name for field in fields(PrefillMemory))
"""Values of a prefill group that say what it moves."""
MLA_HEAD_DIM = 160
"""Width of a softmax head that does as many FLOP per pair as one of DeepSeek's MLA: (128 + 64 + 128) / 2."""
SCALED_REL = 0.3
"""Half-width of the interval of a scaled rate: fp8 products reach 0.65..0.92 of the share of their peak that bf16
products reach of theirs, on the four machines with both in public tables."""


@dataclass(frozen=True)
class Pick(Generic[Model]):
    """A model, the group of values it is made of, and in `estimate` what is assumed, "" if it was measured."""

    model: Model
    group: str
    values: tuple[ProfileValue, ...]
    estimate: str = ""


def gemm(profile: Profile, dtype: str) -> Pick[GemmModel]:
    """Matrix products with weights of a format (`formats.WEIGHT_FORMATS`).

    Not measured: the fit of bf16, its FLOP rate by the ratio of the datasheet peaks; without a peak for the format the
    weights are unpacked and multiplied in bf16.
    """
    known = _known(dtype, WEIGHT_FORMATS, "weights")
    for name in (known, *NEAR.get(known, ())):
        group = f"kernels.gemm_{name}"
        if f"{group}.t0" in profile.entries:
            note = "" if name == known else f"{dtype} products as those in {name}"
            return Pick(_gemm(profile, group), group, _values(profile, group), note)
    return _scaled(profile, known, f"kernels.gemm_{known}")


def moe(profile: Profile, dtype: str) -> Pick[GemmModel]:
    """Fused experts with weights of a format; not measured: as matrix products of that format."""
    known = _known(dtype, WEIGHT_FORMATS, "weights")
    for name in (known, *NEAR.get(known, ())):
        group = f"kernels.moe_{name}"
        if f"{group}.t0" in profile.entries:
            note = "" if name == known else f"experts in {dtype} as those in {name}"
            return Pick(_gemm(profile, group), group, _values(profile, group), note)
    plain = gemm(profile, dtype)
    return replace(
        plain,
        model=replace(plain.model, residual=None),
        estimate=f"experts in {dtype} cost what matrix products of their bytes and FLOP cost",
    )


def decode(profile: Profile, kv_dtype: str, group: int, head_dim: int, kv_heads: int) -> Pick[DecodeModel]:
    """Decode attention: the measured kernel nearest in KV format, then head width, then query heads per KV head.

    What a sequence costs besides its bytes was measured with 8 KV heads and goes with their number.
    """
    known = _known(kv_dtype, KV_FORMATS, "kv")

    def distance(key: tuple[str, int, int]) -> tuple[int, float, float]:
        return _format_distance(known, key[0]), _octaves(key[2], head_dim), _octaves(key[1], group)

    keys = {key: name for name in _groups(profile) if (key := decode_key(name)) is not None}
    best = min(keys, key=distance)
    path = f"kernels.{keys[best]}"
    share = kv_heads / BASE_KV_HEADS
    floor, t0, per_seq, bandwidth = profile.group_si(path, "floor", "t0", "per_seq", "bandwidth")
    model = DecodeModel(floor, t0, per_seq * share, bandwidth, profile.kernels.residual.get(keys[best]), share)
    same = best == (known, group, head_dim)
    note = "" if same else f"decode attention over {kv_dtype}, {group} x {head_dim}, as over {_of(best)}"
    return Pick(model, path, _values(profile, path), note)


def prefill(profile: Profile, dtype: str, head_dim: int, heads: int, kv_heads: int | None = None) -> Pick[PrefillModel]:
    """Prefill attention over KV of a format: the measured kernel nearest in it, then in head width.

    What a token costs besides its FLOP goes with query heads (measured with 32) and KV heads (by default a quarter).
    """
    known = _known(dtype, KV_FORMATS, "kv")

    def distance(key: tuple[str, int]) -> tuple[int, float]:
        return _format_distance(known, key[0]), _octaves(key[1], head_dim)

    keys = {key: name for name in _groups(profile) if (key := prefill_key(name)) is not None}
    best = min(keys, key=distance)
    path = f"kernels.{keys[best]}"
    model = _prefill_model(profile, path, heads, head_dim, kv_heads or max(1, heads // BASE_GROUP))
    note = "" if best == (known, head_dim) else f"prefill attention over {dtype}, {head_dim}, as over {_of(best)}"
    return Pick(model, path, _values(profile, path), note)


def mla_decode(profile: Profile, kv_dtype: str, heads: int) -> Pick[DecodeModel] | None:
    """Decode attention of `heads` query heads over one latent that they share; None if the profile has none.

    The measured kernel nearest in KV format, then in heads: with many of them it is bound by arithmetic, and its
    "bandwidth" is the rate at which it gets through the bytes then.
    """
    known = _known(kv_dtype, KV_FORMATS, "kv")

    def distance(key: tuple[str, int]) -> tuple[int, float]:
        return _format_distance(known, key[0]), _octaves(key[1], heads)

    keys = {key: name for name in _groups(profile) if (key := mla_decode_key(name)) is not None}
    if not keys:
        return None
    best = min(keys, key=distance)
    path = f"kernels.{keys[best]}"
    floor, t0, per_seq, bandwidth = profile.group_si(path, "floor", "t0", "per_seq", "bandwidth")
    model = DecodeModel(floor, t0, per_seq, bandwidth, profile.kernels.residual.get(keys[best]))
    same = best == (known, heads)
    note = "" if same else f"decode attention over a latent in {kv_dtype}, {heads} heads, as over {_of(best)}"
    return Pick(model, path, _values(profile, path), note)


def mla_prefill(profile: Profile, dtype: str, heads: int) -> Pick[PrefillModel] | None:
    """Prefill attention of MLA, latents expanded into `heads` heads; None if the profile has none."""
    known = _known(dtype, KV_FORMATS, "kv")
    for name in (known, *(other for other in ("fp8", "bf16") if other != known)):
        path = f"kernels.mla_prefill_{name}"
        if f"{path}.t0" in profile.entries:
            model = _prefill_model(profile, path, heads, MLA_HEAD_DIM, heads)
            note = "" if name == known else f"prefill attention of MLA over {dtype} as over {name}"
            return Pick(model, path, _values(profile, path), note)
    return None


def allreduce(profile: Profile, ranks: int) -> Pick[AllReduceModel] | None:
    """Sum over `ranks` GPUs of a node; None if the profile has none for that many."""
    path = f"kernels.allreduce_{ranks}"
    if f"{path}.alpha" not in profile.entries:
        return None
    alpha, beta = profile.group_si(path, "alpha", "beta")
    model = AllReduceModel(ranks, alpha, beta, profile.kernels.residual.get(path[8:]))
    return Pick(model, path, _values(profile, path))


def mixed(profile: Profile) -> Pick[MixedModel] | None:
    """Attention of steps with prompts and decoding sequences; None if the profile does not say."""
    path = "kernels.mixed_attn"
    if f"{path}.factor" not in profile.entries:
        return None
    (factor,) = profile.group_si(path, "factor")
    return Pick(MixedModel(factor, profile.kernels.residual.get(path[8:])), path, _values(profile, path))


def imbalance(profile: Profile) -> Pick[ImbalanceModel] | None:
    """Decode attention over sequences of unequal length; None if the profile does not say."""
    path = "kernels.decode_imbalance"
    if f"{path}.share" not in profile.entries:
        return None
    model = ImbalanceModel(*profile.group_si(path, "share", "sharpness", "min_tiles"))
    return Pick(model, path, _values(profile, path))


def _scaled(profile: Profile, dtype: str, path: str) -> Pick[GemmModel]:
    peak = PEAKS.get(dtype, "")
    ratio = 1.0
    how = "weights are unpacked and multiplied in bf16"
    if f"peaks.{peak}" in profile.entries and "peaks.bf16" in profile.entries:
        ratio = profile.si(f"peaks.{peak}") / profile.si("peaks.bf16")
        how = f"FLOP rate of bf16 by the ratio of the datasheet peaks, {ratio:.3g}"
        if dtype in ATTAINED:
            ratio *= ATTAINED[dtype]
            how += f", of which {ATTAINED[dtype]:.0%} were measured on an RTX 3090"
    note = f"{dtype} products: {how}"
    values = []
    for value in _values(profile, "kernels.gemm_bf16"):
        key = value.path.rpartition(".")[2]
        si = value.value_si * (ratio if key == "flops" else 1.0)
        rel = max(SCALED_REL, value.rel or 0.0) if key == "flops" else value.rel
        lo, hi = (si * (1 - rel), si * (1 + rel)) if key == "flops" and rel else (value.lo, value.hi)
        text = f"{si:.4g} {value.si_unit}" if key == "flops" else value.text
        values.append(
            replace(
                value,
                path=f"{path}.{key}",
                value_si=si,
                text=text,
                rel=rel,
                lo=lo,
                hi=hi,
                src_key="estimate",
                source_text=f"estimate: {note}",
            )
        )
    by_key = {value.path.rpartition(".")[2]: value.value_si for value in values}
    model = GemmModel(by_key["t0"], by_key["bandwidth"], by_key["flops"], by_key["p"])
    return Pick(model, path, tuple(values), note)


def _gemm(profile: Profile, path: str) -> GemmModel:
    t0, bandwidth, flops, p = profile.group_si(path, "t0", "bandwidth", "flops", "p")
    tile = f"{path}.tile_rows"
    rows = int(profile.si(tile)) if tile in profile.entries else 1
    return GemmModel(t0, bandwidth, flops, p, profile.kernels.residual.get(path[8:]), rows)


def _prefill_model(profile: Profile, path: str, heads: int, head_dim: int, kv_heads: int) -> PrefillModel:
    t0, per_token, flops = profile.group_si(path, "t0", "per_token", "flops")
    span = f"{path}.per_context"
    per_context = profile.si(span) if span in profile.entries else 0.0
    share = heads / BASE_HEADS
    given = {name: profile.si(f"{path}.{name}") for name in MEMORY if f"{path}.{name}" in profile.entries}
    if "per_split" in given:
        given["per_split"] *= share
    memory = PrefillMemory(**given) if given else PLAIN
    residual = profile.kernels.residual.get(path[8:])
    return PrefillModel(t0, per_token * share, flops, residual, heads, head_dim, per_context, kv_heads, memory)


def _values(profile: Profile, path: str) -> tuple[ProfileValue, ...]:
    return tuple(value for value in profile.entries.values() if value.path.rpartition(".")[0] == path)


def _groups(profile: Profile) -> list[str]:
    """Names of the kernel groups that the profile has."""
    paths = (path.split(".") for path in profile.entries if path.startswith("kernels."))
    return list(dict.fromkeys(parts[1] for parts in paths))


def _known(dtype: str, formats: Mapping[str, object], what: str) -> str:
    if dtype not in formats:
        raise InputError("unknown number format", path=what, found=dtype, allowed=formats, near=formats)
    return SAME.get(dtype, dtype)


def _format_distance(wanted: str, found: str) -> int:
    """0 for the same format; a quantised cache is nearer to another quantised one than to bf16."""
    if wanted == found:
        return 0
    return 1 if (wanted == "bf16") == (found == "bf16") else 2


def _octaves(a: int, b: int) -> float:
    return abs(math.log2(a / b))


def _of(key: tuple[str | int, ...]) -> str:
    return f"{key[0]}, {' x '.join(str(part) for part in key[1:])}"
