"""The torch implementations that stand in for kernels on the CPU, against the float64 references of the kernels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from calibration.kernels.kv_cache import Layout, attention_reference, make_cache
from calibration.suite import ops

TOLERANCE = 3e-2
"""bf16, as for the kernels."""


def run() -> Iterator[dict[str, Any]]:
    """Records as `calibration.kernels.verify` gives them."""
    layout, lengths = Layout(8, 2, 64), [70, 3, 33]
    queries = torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    cache, out = make_cache(layout, lengths, 12, queries), torch.full_like(queries, float("nan"))
    started = time.perf_counter()
    ops.decode(queries, cache, out, None)
    reference = torch.cat([attention_reference(queries[i : i + 1], cache, i) for i in range(3)])
    yield _record("decode_cpu", out, reference, started)
    started = time.perf_counter()
    new = torch.randn(20, 8, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    out = torch.full_like(new, float("nan"))
    ops.prefill(new, cache, 0, lengths[0] - 20, out)
    yield _record("prefill_cpu", out, attention_reference(new, cache, 0), started)


def _record(name: str, result: torch.Tensor, reference: torch.Tensor, started: float) -> dict[str, Any]:
    error = float((result.double() - reference).norm() / reference.norm())
    record = {"kernel": name, "dtype": "bf16", "error": error, "tolerance": TOLERANCE, "ok": error <= TOLERANCE}
    return record | {"seconds": round(time.perf_counter() - started, 3), "problem": ""}
