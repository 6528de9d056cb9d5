"""Row selection from small tables in the public layout."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibration import public_tables as tables
from hw_profiles.errors import InputError


def write(data: Path, name: str, rows: list[dict[str, object]]) -> None:
    path = data / "kernels" / "aiconfigurator" / "h100_sxm" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def attention(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {"attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "head_dim": 128}
    row |= {"num_heads": 32, "num_key_value_heads": 8, "window_size": 0, "batch_size": 1, "latency": 0.5}
    return row | changes


def test_gemm_rows_keep_bf16_of_the_size_range_in_seconds(tmp_path: Path) -> None:
    row = {"gemm_dtype": "bfloat16", "m": 16, "n": 4096, "k": 1024, "latency": 0.25}
    drop = [row | {"gemm_dtype": "fp8"}, row | {"n": 512}, row | {"k": 32768}, row | {"m": 16384}]
    write(tmp_path, "gemm/vllm/0.24.0/gemm_perf.parquet", [row, *drop])
    m, n, k, seconds = tables.gemm_rows(tmp_path, "h100_sxm")
    assert [x.tolist() for x in (m, n, k, seconds)] == [[16], [4096], [1024], [0.25e-3]]


def test_decode_rows_count_the_new_token_and_cold_rows_exceed_l2(tmp_path: Path) -> None:
    rows = [
        attention(step=8191),  # 33 MB: fits in L2
        attention(step=65535),  # 268 MB
        attention(step=63, batch_size=512),  # cold, but shorter than MIN_SEQ
        attention(step=1023, batch_size=1024),  # cold, but a larger batch than MAX_BATCH
        attention(step=65535, window_size=128),
        attention(step=65535, num_key_value_heads=4),
        attention(step=65535, kv_cache_dtype="fp8"),
    ]
    write(tmp_path, "attention/vllm/0.24.0/generation_attention_perf.parquet", rows)
    batch, seq, seconds = tables.decode_rows(tmp_path, "h100_sxm")
    assert sorted(zip(batch, seq, strict=True)) == [(1, 8192), (1, 65536), (512, 64), (1024, 1024)]
    assert set(seconds) == {0.5e-3}
    batch, nbytes, _ = tables.cold_rows(tmp_path, "h100_sxm")
    assert (batch.tolist(), nbytes.tolist()) == ([1], [65536 * 4096])


def test_tables_without_a_window_column(tmp_path: Path) -> None:
    row = attention(isl=256)
    del row["window_size"]
    write(
        tmp_path, "attention/vllm/0.24.0/context_attention_perf.parquet", [row | {"isl": 512}, row, row | {"isl": 64}]
    )
    tokens, seconds = tables.prefill_rows(tmp_path, "h100_sxm")
    assert (tokens.tolist(), seconds.tolist()) == ([256, 512], [0.5e-3, 0.5e-3])


def test_link_rows_turn_rates_into_times(tmp_path: Path) -> None:
    folder = tmp_path / "measured" / "pcie_block_copy"
    folder.mkdir(parents=True)
    text = "block_kb,gpu_to_cpu_dma_GBps,gpu_to_cpu_custom_kernel_GBps\n1024,8,1\n"
    (folder / "d2h_rate_vs_block_size_h100.csv").write_text(text)
    nbytes, seconds = tables.link_rows(tmp_path, "d2h")
    assert (nbytes.tolist(), seconds.tolist()) == ([2**20], [2**20 / 8e9])


def test_missing_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gemm_perf\.parquet: file not found"):
        tables.gemm_rows(tmp_path, "h100_sxm")
    with pytest.raises(InputError, match=r"h2d_rate_vs_block_size_h100\.csv: file not found"):
        tables.link_rows(tmp_path, "h2d")
