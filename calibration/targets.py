"""What held-out errors must not exceed: mean absolute relative errors (MAPE), as fractions."""

from __future__ import annotations

import re
from typing import NamedTuple


class Target(NamedTuple):
    """The first that matches profile, kernel and split (regular expressions, whole) holds; None: only reported."""

    profile: str
    kernel: str
    split: str
    mape: float | None


TARGETS: tuple[Target, ...] = (
    Target(r".*", r"decode_attn_fp8.*|prefill_attn_fp8.*|mla_.*|moe_.*|allreduce_.*", r".*", None),
    Target(r".*", r"gemm_(?!bf16).*", r".*", None),
    Target(r"h100-sxm-sglang", r"decode_attn.*", r"cold", 0.04),
    Target(r".*", r"decode_attn.*", r"cold|held out", 0.08),
    Target(r".*", r"prefill_attn.*", r"32 heads|other heads", 0.05),
    Target(r".*", r"gemm_bf16", r"measured shapes", 0.06),
    Target(r"h100-sxm.*|a100-80.*", r"gemm_bf16", r"unseen shapes", 0.08),
    Target(r"b200.*|rtx-pro-6000.*", r"gemm_bf16", r"unseen shapes", 0.12),
    Target(r"l40s.*", r"gemm_bf16", r"unseen shapes", 0.15),
    Target(r".*", r"decode_step", r"held out", 0.04),
    Target(r"all pairs", r"transferred decode_step", r"median", 0.15),
)


def target_of(profile: str, kernel: str, split: str) -> float | None:
    """The largest MAPE that a row may have; None if there is no target for it."""
    for target in TARGETS:
        named = zip((target.profile, target.kernel, target.split), (profile, kernel, split), strict=True)
        if all(re.fullmatch(pattern, text) for pattern, text in named):
            return target.mape
    return None
