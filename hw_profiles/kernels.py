"""Kernel vocabulary: the names and shape fields that calibration measures, sim charges and policies name.

Shapes are whole numbers in elements, tokens or bytes as each field says; a call is one launch on one GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hw_profiles.errors import InputError


@dataclass(frozen=True)
class Kernel:
    """One kernel: its shape fields (name -> unit) and a line for people."""

    name: str
    fields: Mapping[str, str]
    about: str


def _kernel(name: str, about: str, **fields: str) -> tuple[str, Kernel]:
    return name, Kernel(name, MappingProxyType(fields), about)


KERNELS: Mapping[str, Kernel] = MappingProxyType(
    dict(
        (
            _kernel("gemm", "matrix product [m, k] x [k, n]", m="rows", n="columns", k="depth", dtype="text"),
            _kernel(
                "decode_attention",
                "one new token per sequence over its cached context, one layer",
                batch="sequences",
                context_tokens="tokens over all sequences",
                heads="query heads",
                kv_heads="key/value heads",
                head_dim="elements",
            ),
            _kernel(
                "prefill_attention",
                "a chunk of new tokens of one sequence after a cached prefix, causal, one layer",
                tokens="new tokens",
                prefix="cached tokens",
                heads="query heads",
                kv_heads="key/value heads",
                head_dim="elements",
            ),
            _kernel("elementwise", "norms, activations, rotary, cache write", bytes="read + written"),
            _kernel("copy", "one link transfer of separate blocks", bytes="bytes in all", copies="blocks"),
        )
    )
)


def check_shape(name: str, shape: Mapping[str, object]) -> None:
    """Raise InputError unless `name` is a kernel and `shape` has exactly its fields."""
    if name not in KERNELS:
        raise InputError("unknown kernel", found=name, allowed=KERNELS, near=KERNELS)
    fields = KERNELS[name].fields
    for key in shape:
        if key not in fields:
            raise InputError("unknown shape field", path=name, found=key, allowed=fields, near=fields)
    for key in fields:
        if key not in shape:
            raise InputError(f"missing shape field {key!r}", path=name, allowed=fields)
