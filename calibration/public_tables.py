"""Rows of public measurements, as plain arrays in SI units.

Kernel tables: aiconfigurator (ai-dynamo, Apache-2.0), `kernels/aiconfigurator/<system>/...` below the data
folder. Attention tables repeat one buffer, so KV sets that fit in L2 are read warm: `cold_rows` leaves them
out. Link rates: `measured/pcie_block_copy`, digitised from vLLM's KV-offloading post of 2026-01-08.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from hw_profiles.errors import InputError

Array = NDArray[np.float64]

HEADS, KV_HEADS, HEAD_DIM, BF16 = (
    32,
    8,
    128,
    2,
)  # the head layout of Llama-3.1-8B, the rows fitted for attention
MAX_BATCH, MIN_SEQ = (
    512,
    128,
)  # decode rows fitted; shorter contexts are bound by work per sequence, not by bytes


@dataclass(frozen=True)
class System:
    """Where the rows of one machine are, and its L2 size in bytes (decode rows below twice that are warm)."""

    gemm: str
    attention: str
    l2_bytes: int


SYSTEMS: Mapping[str, System] = MappingProxyType(
    {
        "h100_sxm": System("gemm/vllm/0.24.0", "attention/vllm/0.24.0", 50 * 2**20),
        "a100_sxm": System("gemm/vllm/0.14.0", "attention/vllm/0.14.0", 40 * 2**20),
    }
)


def gemm_rows(data: Path, system: str) -> tuple[Array, Array, Array, Array]:
    """(m, n, k, seconds) of the bf16 products with n, k in 1,024..16,384 and m <= 8,192."""
    rows = _table(data, system, f"{SYSTEMS[system].gemm}/gemm_perf.parquet", "m", "n", "k", gemm_dtype="bfloat16")
    n, k = rows["n"], rows["k"]
    keep = (n >= 1024) & (n <= 16384) & (k >= 1024) & (k <= 16384) & (rows["m"] <= 8192)
    return rows["m"][keep], n[keep], k[keep], rows["seconds"][keep]


def decode_rows(data: Path, system: str) -> tuple[Array, Array, Array]:
    """(batch, context length, seconds) of one-layer decode attention; the new token counts as context."""
    rows = _attention(data, system, "generation", "step")
    return rows["batch_size"], rows["step"] + 1, rows["seconds"]


def kv_bytes(batch: Array, seq: Array) -> Array:
    """Bytes of keys and values that one layer of decode attention reads."""
    return batch * seq * (2 * KV_HEADS * HEAD_DIM * BF16)


def prefill_rows(data: Path, system: str) -> tuple[Array, Array]:
    """(tokens, seconds) of one-layer prefill attention, one sequence of >= MIN_SEQ tokens, ascending."""
    rows = _attention(data, system, "context", "isl")
    keep = (rows["batch_size"] == 1) & (rows["isl"] >= MIN_SEQ)
    order = np.argsort(rows["isl"][keep])
    return rows["isl"][keep][order], rows["seconds"][keep][order]


def link_rows(data: Path, direction: str) -> tuple[Array, Array]:
    """(bytes, seconds) of one cudaMemcpyAsync per block on an H100, `direction` h2d or d2h."""
    path = data / "measured" / "pcie_block_copy" / f"{direction}_rate_vs_block_size_h100.csv"
    if not path.exists():
        raise InputError("file not found", where=path)
    table = pyarrow.csv.read_csv(path)
    column = "cpu_to_gpu_dma_GBps" if direction == "h2d" else "gpu_to_cpu_dma_GBps"
    nbytes = table["block_kb"].to_numpy().astype(np.float64) * 1024
    return nbytes, nbytes / (table[column].to_numpy() * 1e9)


def decode_floor(data: Path, system: str) -> tuple[float, float, float]:
    """Least time of decode attention: (median, 5 %, 95 %) over batch <= 8, at most MIN_SEQ tokens each."""
    batch, seq, seconds = decode_rows(data, system)
    small = seconds[(batch <= 8) & (seq <= MIN_SEQ)]
    lo, mid, hi = np.quantile(small, [0.05, 0.5, 0.95])
    return float(mid), float(lo), float(hi)


def cold_rows(data: Path, system: str) -> tuple[Array, Array, Array]:
    """(batch, bytes, seconds) of the decode rows that cannot live in L2: KV of at least twice its size."""
    batch, seq, seconds = decode_rows(data, system)
    nbytes = kv_bytes(batch, seq)
    keep = (nbytes >= 2 * SYSTEMS[system].l2_bytes) & (batch <= MAX_BATCH) & (seq >= MIN_SEQ)
    return batch[keep], nbytes[keep], seconds[keep]


def _attention(data: Path, system: str, phase: str, length: str) -> dict[str, Array]:
    name = f"{SYSTEMS[system].attention}/{phase}_attention_perf.parquet"
    same = {"attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "head_dim": HEAD_DIM}
    same |= {"num_heads": HEADS, "num_key_value_heads": KV_HEADS, "window_size": 0}
    return _table(data, system, name, "batch_size", length, **same)


def _table(data: Path, system: str, name: str, *columns: str, **same: object) -> dict[str, Array]:
    """Columns as float64, of the rows where every `same` column that the table has holds that value."""
    path = data / "kernels" / "aiconfigurator" / system / name
    if not path.exists():
        raise InputError("file not found", where=path)
    table = pyarrow.parquet.read_table(path)
    keep = np.ones(table.num_rows, dtype=bool)
    for column, value in same.items():
        if column in table.column_names:  # tables without window_size have no windowed rows
            keep &= table[column].to_numpy() == value
    out = {column: table[column].to_numpy().astype(np.float64)[keep] for column in columns}
    out["seconds"] = table["latency"].to_numpy().astype(np.float64)[keep] * 1e-3  # the tables are in ms
    return out
