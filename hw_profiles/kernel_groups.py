"""The groups of values below `kernels:` in a profile: their names, their values, the axes of their residual tables.

`gemm_bf16`, `decode_attn` (bf16 KV, 4 query heads per KV head, heads of 128), `prefill_attn` (bf16, heads of 128) and
`launch` are in every profile. Others are named by what they were measured on: `gemm_fp8`, `decode_attn_fp8_g8_d128`,
`prefill_attn_bf16_d64`, `mla_decode_bf16_h16` (query heads), `mla_prefill_bf16`, `moe_fp8_block`, `allreduce_4` (of
ranks). `mixed_attn` and `decode_imbalance` say what a batch adds to its parts (`batch_effects`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hw_profiles.quantity import COMPUTE, COUNT, EXPONENT, FACTOR, RATE, SHARE, SIZE, TIME, Quantity

GEMM: Mapping[str, Quantity] = MappingProxyType({"t0": TIME, "bandwidth": RATE, "flops": COMPUTE, "p": EXPONENT})
DECODE: Mapping[str, Quantity] = MappingProxyType({"floor": TIME, "t0": TIME, "per_seq": TIME, "bandwidth": RATE})
PREFILL: Mapping[str, Quantity] = MappingProxyType({"t0": TIME, "per_token": TIME, "flops": COMPUTE})
GEMM_OPTIONAL: Mapping[str, Quantity] = MappingProxyType({"tile_rows": COUNT})
PREFILL_OPTIONAL: Mapping[str, Quantity] = MappingProxyType(
    {
        "per_context": TIME,
        "per_kv": TIME,
        "per_write": TIME,
        "warm": SHARE,
        "warm_bytes": SIZE,
        "split": TIME,
        "per_split": TIME,
        "split_tiles": COUNT,
    }
)
NONE: Mapping[str, Quantity] = MappingProxyType({})
ALLREDUCE: Mapping[str, Quantity] = MappingProxyType({"alpha": TIME, "beta": RATE})
MIXED: Mapping[str, Quantity] = MappingProxyType({"factor": FACTOR})
IMBALANCE: Mapping[str, Quantity] = MappingProxyType({"share": SHARE, "sharpness": EXPONENT, "min_tiles": COUNT})
LAUNCH: Mapping[str, Quantity] = MappingProxyType({"stream": TIME, "graph": TIME})

REQUIRED_GROUPS: Mapping[str, Mapping[str, Quantity]] = MappingProxyType(
    {"gemm_bf16": GEMM, "decode_attn": DECODE, "prefill_attn": PREFILL, "launch": LAUNCH}
)
BASE_GROUP, BASE_HEAD_DIM, BASE_KV_HEADS = 4, 128, 8
"""Query heads per KV head, head width and KV heads that `decode_attn` and `prefill_attn` stand for."""

GEMM_AXES = (("m", "n", "k"), ("area", "n", "k"))
DECODE_AXES, ALLREDUCE_AXES = (("batch", "bytes"), ("kv_heads", "batch", "bytes")), (("bytes",),)
PREFILL_AXES = (
    ("heads", "tokens", "context", "group"),
    ("tokens", "context", "group"),
    ("heads", "tokens", "context"),
)
MIXED_AXES = (("prefill_per_decode", "batch", "context"),)
_DTYPE = r"(?:bf16|fp8|fp8_block|int8|int4|mxfp4|nvfp4|w4a4)"


@dataclass(frozen=True)
class Form:
    """The values of a kernel group (those it must have, those it may have), and the axes that its table may have."""

    required: Mapping[str, Quantity]
    axes: tuple[tuple[str, ...], ...]
    optional: Mapping[str, Quantity]

    @property
    def values(self) -> dict[str, Quantity]:
        """Required and optional ones."""
        return {**self.required, **self.optional}


_FORMS: tuple[tuple[re.Pattern[str], Form], ...] = (
    (re.compile(rf"(?:gemm|moe)_{_DTYPE}"), Form(GEMM, GEMM_AXES, GEMM_OPTIONAL)),
    (re.compile(rf"decode_attn(?:_{_DTYPE}_g\d+_d\d+)?|mla_decode_{_DTYPE}_h\d+"), Form(DECODE, DECODE_AXES, NONE)),
    (
        re.compile(rf"prefill_attn(?:_{_DTYPE}_d\d+)?|mla_prefill_{_DTYPE}"),
        Form(PREFILL, PREFILL_AXES, PREFILL_OPTIONAL),
    ),
    (re.compile(r"allreduce_\d+"), Form(ALLREDUCE, ALLREDUCE_AXES, NONE)),
    (re.compile(r"mixed_attn"), Form(MIXED, MIXED_AXES, NONE)),
    (re.compile(r"decode_imbalance"), Form(IMBALANCE, (), NONE)),
    (re.compile(r"launch"), Form(LAUNCH, (), NONE)),
)
EXAMPLES = (*REQUIRED_GROUPS, "gemm_fp8", "decode_attn_fp8_g8_d128", "prefill_attn_bf16_d64", "allreduce_4")
"""Names for error messages."""


def group_form(name: str) -> Form | None:
    """What a kernel group of a name holds; None if no group may be called so."""
    return next((form for pattern, form in _FORMS if pattern.fullmatch(name)), None)


def decode_name(kv_dtype: str, group: int, head_dim: int) -> str:
    """The group of decode attention over KV of a type, `group` query heads per KV head, heads of `head_dim`."""
    base = (kv_dtype, group, head_dim) == ("bf16", BASE_GROUP, BASE_HEAD_DIM)
    return "decode_attn" if base else f"decode_attn_{kv_dtype}_g{group}_d{head_dim}"


def prefill_name(dtype: str, head_dim: int) -> str:
    """The group of prefill attention over KV of a type with heads of `head_dim`."""
    return "prefill_attn" if (dtype, head_dim) == ("bf16", BASE_HEAD_DIM) else f"prefill_attn_{dtype}_d{head_dim}"


def decode_key(name: str) -> tuple[str, int, int] | None:
    """(KV type, query heads per KV head, head width) of a group of decode attention; None for another group."""
    if name == "decode_attn":
        return "bf16", BASE_GROUP, BASE_HEAD_DIM
    found = re.fullmatch(rf"decode_attn_({_DTYPE})_g(\d+)_d(\d+)", name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def prefill_key(name: str) -> tuple[str, int] | None:
    """(KV type, head width) of a group of prefill attention; None for another group."""
    if name == "prefill_attn":
        return "bf16", BASE_HEAD_DIM
    found = re.fullmatch(rf"prefill_attn_({_DTYPE})_d(\d+)", name)
    return (found[1], int(found[2])) if found else None


def mla_decode_key(name: str) -> tuple[str, int] | None:
    """(KV type, query heads) of a group of decode attention over a latent; None for another group."""
    found = re.fullmatch(rf"mla_decode_({_DTYPE})_h(\d+)", name)
    return (found[1], int(found[2])) if found else None
