"""The table of benches: name -> what makes a trial of a key, and the checks of the kernels that it times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from calibration.suite import (
    bench_attention,
    bench_copies,
    bench_host,
    bench_kv,
    bench_memory,
    bench_overlap,
    bench_products,
)
from calibration.suite.lab import Lab
from calibration.suite.timing import Trial

Bench = Callable[[Lab, dict[str, Any]], Trial]
BENCHES: Mapping[str, Bench] = MappingProxyType(
    {
        "stream": bench_memory.stream,
        "l2_read": bench_memory.l2_read,
        "chase": bench_memory.chase,
        "l2_prefetch": bench_memory.l2_prefetch,
        "gemm_beside_prefetch": bench_memory.gemm_beside_prefetch,
        "launch": bench_memory.launch,
        "decode": bench_attention.decode,
        "decode_skew": bench_attention.decode_skew,
        "mla": bench_attention.mla,
        "prefill": bench_attention.prefill,
        "gemm": bench_products.gemm,
        "elementwise": bench_products.elementwise,
        "layer": bench_products.layer,
        "page_copy": bench_kv.page_copy,
        "quantise": bench_kv.quantise,
        "digest": bench_kv.digest,
        "copy": bench_copies.copy,
        "blocks": bench_copies.blocks,
        "both_ways": bench_copies.both_ways,
        "behind": bench_copies.behind,
        "programs": bench_copies.programs,
        "from_host": bench_attention.from_host,
        "beside": bench_overlap.beside,
        "host_memcpy": bench_host.host_memcpy,
        "pin": bench_host.pin,
        "nvme": bench_host.nvme,
    }
)
CHECKED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "stream": ("stream_",),
        "l2_read": ("stream_read",),
        "chase": ("pointer_chase",),
        "l2_prefetch": ("l2_prefetch", "stream_read"),
        "gemm_beside_prefetch": ("l2_prefetch",),
        "decode": ("decode_",),
        "decode_skew": ("decode_gqa4",),
        "mla": ("mla_",),
        "prefill": ("prefill",),
        "elementwise": ("rms_norm", "silu_gate", "rotary", "kv_write"),
        "layer": ("decode_gqa4", "rms_norm", "silu_gate", "rotary", "kv_write"),
        "page_copy": ("page_copy",),
        "quantise": ("quantise_",),
        "digest": ("digest_",),
        "blocks": ("address_copy",),
        "both_ways": ("address_copy",),
        "programs": ("address_copy",),
        "from_host": ("decode_gqa4",),
        "beside": ("stream_", "decode_gqa4", "address_copy"),
    }
)
"""Prefixes of the names of checks: a bench is not timed when one of them failed."""
