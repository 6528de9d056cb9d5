"""The table of benches: name -> what makes a trial of a key; and which checks stand for the kernels of a point."""

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
from calibration.suite.point import Key
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
_CHECKED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "l2_read": ("stream_read",),
        "chase": ("pointer_chase",),
        "l2_prefetch": ("l2_prefetch", "stream_read"),
        "gemm_beside_prefetch": ("l2_prefetch",),
        "decode_skew": ("decode_gqa4",),
        "mla": ("mla_",),
        "elementwise": ("rms_norm", "silu_gate", "rotary", "kv_write"),
        "layer": ("decode_gqa4", "rms_norm", "silu_gate", "rotary", "kv_write"),
        "page_copy": ("page_copy",),
        "digest": ("digest_",),
        "programs": ("address_copy",),
        "from_host": ("decode_gqa4",),
    }
)
_PLAIN = ("decode_gqa", "decode_mha", "decode_page", "decode_cpu")


def checked_by(bench: str, key: Key) -> tuple[str, ...]:
    """Prefixes of the names of checks: a point is not timed when one of them failed. None for what is torch's own."""
    if bench == "stream":
        return (f"stream_{key['op']}",)
    if bench == "decode":
        return _PLAIN if key["format"] == "bf16" else (f"decode_{key['format']}",)
    if bench == "quantise":
        return (f"quantise_{key['format']}",)
    if bench in {"prefill", "gemm"}:
        return (bench,) if key["impl"] == "triton" else ()
    if bench in {"blocks", "both_ways"}:
        return ("address_copy",) if "kernel" in key.values() else ()
    if bench == "beside":
        kernel = {"decode": ("decode_gqa4",), "gemm": ()}.get(str(key["kernel"]), (str(key["kernel"]),))
        return (*kernel, "address_copy") if str(key["traffic"]).endswith("_kernel") else kernel
    return _CHECKED.get(bench, ())
