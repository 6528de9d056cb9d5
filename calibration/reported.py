"""Errors of kernels that have no target (8 and 4 bit formats, experts, all-reduce), a few numbers per profile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from calibration.validate_kernels import Row

REPORTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "fp8": (r"gemm_fp8.*", r".*"),
        "4 bit, int8": (r"gemm_(nvfp4|mxfp4|int4|int8)", r".*"),
        "decode, fp8 KV": (r"decode_attn_fp8.*", r"cold|held out"),
        "prefill, fp8 KV": (r"prefill_attn_fp8.*", r".*"),
        "MoE bf16": (r"moe_bf16", r".*"),
        "MoE fp8": (r"moe_fp8.*", r".*"),
        "MoE 4 bit": (r"moe_(?!mxfp4).*4", r".*"),
        "MoE mxfp4": (r"moe_mxfp4", r".*"),
        "all-reduce": (r"allreduce_.*", r".*"),
    }
)
"""Kernels and splits of a column, as regular expressions that match as a whole. Products come first."""


def reported_errors(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """By profile and column of `REPORTED` the mean absolute error over all held-out points, as a fraction."""
    sums: dict[str, dict[str, tuple[float, int]]] = {}
    for row in rows:
        for column, (kernel, split) in REPORTED.items():
            if row.target is None and re.fullmatch(kernel, row.kernel) and re.fullmatch(split, row.split):
                total, points = sums.setdefault(row.profile, {}).get(column, (0.0, 0))
                sums[row.profile][column] = (total + row.n * row.mape, points + row.n)
    return {
        profile: {column: total / points for column, (total, points) in columns.items()}
        for profile, columns in sums.items()
    }
