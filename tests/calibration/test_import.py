"""Importing tables: profiles get back what the tables were made from; what cannot be right is one line and exit 2."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibration import importer
from calibration.importer import profile_text, read_points
from hw_profiles.cost_models import AllReduceModel, DecodeModel, GemmModel
from hw_profiles.errors import InputError
from hw_profiles.loader import load_profile
from hw_profiles.prefill_cost import PrefillMemory, PrefillModel
from kvsim.cli.main import run

TRACES = os.environ.get("KVSIM_TRACES")
DATA = Path(TRACES).parent if TRACES else Path(__file__).parents[3] / "shared" / "data"
L40S = DATA / "kernels" / "aiconfigurator" / "l40s"
needs_data = pytest.mark.skipif(not L40S.is_dir(), reason=f"no kernel tables in {DATA}")
DEVICE = "NVIDIA H100 80GB HBM3"
GEMM = GemmModel(4e-6, 2.9e12, 7.5e14, 3.0, tile_rows=64)
DECODE = DecodeModel(1.2e-5, 1.5e-5, 1e-7, 3.1e12)
MOVED = PrefillMemory(per_kv=4e-10, per_write=3e-9)
PREFILL = PrefillModel(1.2e-5, 1.2e-8, 6.5e14, per_context=9e-9, memory=MOVED)
REDUCE = AllReduceModel(4, 6e-6, 2e11)


def write(path: Path, rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = max(len(np.atleast_1d(values)) for values in rows.values())
    columns = {name: np.broadcast_to(values, count) for name, values in rows.items()}
    pq.write_table(pa.table({name: pa.array(values.tolist()) for name, values in columns.items()}), path)


def mesh(*axes: Any) -> list[np.ndarray]:
    return [axis.ravel().astype(float) for axis in np.meshgrid(*axes, indexing="ij")]


def gemm_rows() -> dict[str, Any]:
    sizes = [512, 1024, 2048, 4096, 8192, 16384]
    m, n, k = mesh([1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192], sizes, sizes)
    seconds = GEMM.seconds(2 * (m * k + k * n + m * n), 2 * m * n * k, (m, n, k))
    return {
        "device": DEVICE,
        "kernel_source": "made",
        "gemm_dtype": "bfloat16",
        "m": m,
        "n": n,
        "k": k,
        "latency": 1e3 * seconds,
    }


def decode_rows(speed: float = 1.0) -> dict[str, Any]:
    batch, seq, kv_heads = mesh(2.0 ** np.arange(10), 2.0 ** np.arange(1, 17), [1, 2, 4, 8])
    nbytes = batch * seq * kv_heads * 512
    keep = nbytes < 4e9
    batch, seq, kv_heads, nbytes = (x[keep] for x in (batch, seq, kv_heads, nbytes))
    seconds = DECODE.seconds(batch * kv_heads / 8, nbytes) / speed
    columns = {"batch_size": batch, "step": seq - 1, "num_heads": 4 * kv_heads, "num_key_value_heads": kv_heads}
    same = {"device": DEVICE, "kernel_source": "made", "head_dim": 128, "kv_cache_dtype": "bfloat16", "window_size": 0}
    return {**same, **columns, "latency": 1e3 * seconds}


def prefill_rows() -> dict[str, Any]:
    lengths = [128, 256, 512, 1024, 2048, 4096, 8192, 16384]
    batch, length, heads, group = mesh([1, 2, 4, 8], lengths, [4, 8, 16, 32, 64], [1, 4, 8])
    batch, length, heads, group = (x[heads >= group] for x in (batch, length, heads, group))
    seconds = np.zeros_like(batch)
    for count, each in {*zip(heads, group, strict=True)}:
        rows = (heads == count) & (group == each)
        per_token = PREFILL.per_token * count / 32
        model = replace(PREFILL, per_token=per_token, heads=int(count), kv_heads=int(count / each))
        flops = 4 * count * 128 * batch[rows] * length[rows] ** 2 / 2
        seconds[rows] = model.seconds(batch[rows] * length[rows], flops)
    columns = {"batch_size": batch, "isl": length, "num_heads": heads, "num_key_value_heads": heads / group, "step": 0}
    same = {"device": DEVICE, "kernel_source": "made", "head_dim": 128, "kv_cache_dtype": "bfloat16", "window_size": 0}
    return {**same, **columns, "latency": 1e3 * seconds}


def reduce_rows() -> dict[str, Any]:
    elements = 2.0 ** np.arange(7, 29)
    latency = 1e3 * REDUCE.seconds(2 * elements)
    graph = {"device": DEVICE, "backend": "vllm_graph", "kernel_source": "made", "num_gpus": 4}
    return {**graph, "message_size": elements, "latency": latency}


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., Path]:
    """A machine's folder of made-up tables; keywords replace one of them."""

    def build(**changed: dict[str, Any]) -> Path:
        rows = {
            "gemm": gemm_rows(),
            "decode": decode_rows(),
            "prefill": prefill_rows(),
            "comm": reduce_rows(),
            **changed,
        }
        folder = tmp_path / "made_up"
        write(folder / "gemm" / "vllm" / "1.0" / "gemm_perf.parquet", rows["gemm"])
        attention = folder / "attention" / "vllm" / "1.0"
        write(attention / "generation_attention_perf.parquet", rows["decode"])
        write(attention / "context_attention_perf.parquet", rows["prefill"])
        write(folder / "comm" / "vllm" / "1.0" / "custom_allreduce_perf.parquet", rows["comm"])
        return folder

    return build


def test_the_profile_is_what_the_tables_were_made_from(tables, tmp_path, capsys) -> None:
    out = tmp_path / "mine.yaml"
    assert run(["calibrate", "import", str(tables()), "--out", str(out)]) == 0
    profile = load_profile(out)
    assert (profile.name, profile.kind) == ("mine", "public_fit")
    assert profile.si("tiers.hbm.peak") == 3.35e12  # of the machine's sheet, found by the device
    for name, model, truth in (
        ("gemm_bf16", profile.gemm, GEMM),
        ("decode_attn", profile.decode, DECODE),
        ("prefill_attn", profile.prefill, PREFILL),
    ):
        for key, value in vars(truth).items():
            if key not in {"residual", "floor", "share", "heads", "kv_heads", "head_dim", "memory"}:
                assert getattr(model, key) == pytest.approx(value, rel=0.03), (name, key)
    for key, value in vars(MOVED).items():
        assert getattr(profile.prefill.memory, key) == pytest.approx(value, rel=0.05, abs=1e-12), key
    total = profile.allreduce(4)
    assert total is not None
    assert total.seconds(2e6) == pytest.approx(REDUCE.seconds(2e6), rel=0.02)
    assert profile.allreduce(2) is None
    assert max(score.mape for score in profile.heldout.values()) < 0.02
    assert "vLLM 1.0 made" in profile.kernels.family["gemm_bf16"]
    assert profile.validity.seq == (2, 65536)
    assert "profile: " in capsys.readouterr().out


def test_warm_rows_are_told_apart(tables) -> None:
    """KV between a little and twice the L2 is left out, whatever it says: here it would be read in no time."""
    rows = decode_rows()
    nbytes = rows["batch_size"] * (rows["step"] + 1) * rows["num_key_value_heads"] * 512
    warm = (nbytes < 2 * 50 * 2**20) & (nbytes > 0.03 * 3.35e12 * rows["latency"] * 1e-3)
    assert warm.sum() > 50
    rows["latency"] = np.where(warm, 1e-6, rows["latency"])
    points = {each.name: each for each in read_points(tables(decode=rows)).points}
    assert points["decode_attn"].seconds.min() > 1e-5
    assert points["decode_attn"].cold.sum() > 50


def test_shapes_whose_hash_is_even_are_never_fitted(tables) -> None:
    points = {each.name: each for each in read_points(tables()).points}["gemm_bf16"]
    unseen = points.splits["unseen shapes"]
    shapes = set(zip(points.shape["n"][unseen], points.shape["k"][unseen], strict=True))
    fitted = set(zip(points.shape["n"][points.fitted], points.shape["k"][points.fitted], strict=True))
    assert shapes
    assert fitted
    assert not shapes & fitted
    assert not (points.fitted & points.splits["measured shapes"]).any()
    assert (points.fitted | unseen | points.splits["measured shapes"]).all()


def broken(rows: dict[str, Any], name: str, row: int, value: Any) -> dict[str, Any]:
    count = len(rows["latency"])
    column = np.array(np.broadcast_to(rows[name], count), dtype=object)
    column[row] = value
    return {**rows, name: column}


def without(rows: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: values for key, values in rows.items() if key != name}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"gemm": broken(gemm_rows(), "latency", 7, float("nan"))},
            r"gemm_perf\.parquet: latency: row \d+ has no number, found 'nan'",
        ),
        (
            {"prefill": broken(prefill_rows(), "latency", 70, -1.0)},
            r"context_attention_perf\.parquet: latency: row \d+ is not a time, found -1",
        ),
        ({"decode": broken(decode_rows(), "device", 3, "NVIDIA A100-SXM4-80GB")}, "rows of two devices in one import"),
        ({"gemm": without(gemm_rows(), "k")}, r"gemm_perf\.parquet: missing column, found 'k', expected one of device"),
        (
            {"decode": decode_rows(speed=1.4)},
            r"generation_attention_perf\.parquet: impossible table: .*found '4\.\d+ TB/s', expected at most 3\.35 TB/s",
        ),
        (
            {"gemm": {**gemm_rows(), "latency": gemm_rows()["latency"] / 1.5}},
            r"gemm_perf\.parquet: impossible table: .*products faster.*found '1\d+ TFLOP/s', expected at most 989",
        ),
        (
            {"prefill": {**prefill_rows(), "latency": prefill_rows()["latency"] / 20}},
            r"context_attention_perf\.parquet: impossible table: .*prefill.*expected at most 989 TFLOP/s",
        ),
        (
            {"decode": broken(decode_rows(), "batch_size", 5, 0)},
            r"generation_attention_perf\.parquet: batch_size: row 6 is not a size, found 0\.0, expected at least 1",
        ),
        (
            {"decode": broken(decode_rows(), "latency", 5, -1.0)},
            r"generation_attention_perf\.parquet: latency: row 6 is not a time, found -1",
        ),
        (
            {"decode": {**decode_rows(), "device": "H100"}, "gemm": {**gemm_rows(), "device": "H100"}},
            "no shipped machine stands for: name one with --machine, found 'H100'",
        ),
    ],
    ids=[
        *("nan", "negative", "two devices", "column", "faster than memory"),
        *("fast products", "fast prefill", "no batch", "negative decode", "unknown device"),
    ],
)
def test_tables_that_cannot_be_right(tables, tmp_path, capsys, changed: dict[str, Any], problem: str) -> None:
    folder = tables(**changed)
    with pytest.raises(InputError, match=problem):
        read_points(folder)
    assert run(["calibrate", "import", str(folder), "--out", str(tmp_path / "mine.yaml")]) == 2
    assert not (tmp_path / "mine.yaml").exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


def test_a_fit_is_checked_before_it_is_written(tables, tmp_path, capsys, monkeypatch) -> None:
    """A rate that no row betrays, but that `calibrate check` refuses in the profile."""

    def too_fast(*given: Any) -> str:
        head, name, tail = profile_text(*given).partition("  decode_attn:")
        rate = "bandwidth: {v: 4, unit: TB/s, src: fit_decode_attn, rel: 0}"
        return head + name + re.sub(r"bandwidth: \{.*", rate, tail, count=1)

    monkeypatch.setattr(importer, "profile_text", too_fast)
    out = tmp_path / "mine.yaml"
    assert run(["calibrate", "import", str(tables()), "--out", str(out)]) == 2
    problem = r"generation_attention_perf\.parquet: kernels\.decode_attn\.bandwidth: impossible table"
    assert re.search(problem, capsys.readouterr().err)
    assert not out.exists()


@needs_data
@pytest.mark.parametrize("name", ["gemm_perf", "context_attention_perf", "generation_attention_perf"])
def test_a_public_table_made_20_times_faster(name: str, tmp_path, capsys) -> None:
    folder = shutil.copytree(L40S, tmp_path / "l40s")
    for path in folder.glob(f"*/*/*/{name}.parquet"):
        table = pq.read_table(path)
        faster = pa.array(table["latency"].to_numpy() / 20)
        pq.write_table(table.set_column(table.column_names.index("latency"), "latency", faster), path)
    assert run(["calibrate", "import", str(folder), "--out", str(tmp_path / "mine.yaml")]) == 2
    assert re.search(rf"{name}\.parquet: impossible table", capsys.readouterr().err)
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize("machine", ["l40s", "h200"])
def test_another_machine_than_the_data_names(tables, tmp_path, capsys, machine: str) -> None:
    out = tmp_path / "mine.yaml"
    assert run(["calibrate", "import", str(tables()), "--machine", machine, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"--machine: measured on {DEVICE}, which is another machine, found '{machine}', expected h100-sxm" in said
    assert not out.exists()
    read_points(tables(), machine="h100-sxm")


def test_a_file_that_is_cut_off(tables, capsys) -> None:
    folder = tables()
    path = folder / "gemm" / "vllm" / "1.0" / "gemm_perf.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    assert run(["calibrate", "import", str(folder)]) == 2
    assert "gemm_perf.parquet: not a whole parquet file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere"], "no such folder, found 'nowhere'"),
        (["."], "no kernel tables, expected a machine's folder"),
        (["TABLES", "--backend", "tgi"], "unknown backend, found 'tgi', expected one of vllm, sglang, trtllm"),
        (
            ["TABLES", "--backend", "sglang"],
            r"no generation_attention_perf.parquet of this backend, found 'sglang', expected vllm",
        ),
        (["TABLES", "--layout", "csv"], "unknown layout, found 'csv', expected one of aiconfigurator, llmservingsim"),
        (["TABLES", "--machine", "h100"], "unknown machine, found .h100.*one of a10, a100-80"),
        (["aiconfigurator-core:h100"], "aiconfigurator-core"),
    ],
)
def test_arguments_that_cannot_be(tables, capsys, arguments: list[str], problem: str) -> None:
    given = [str(tables()) if word == "TABLES" else word for word in arguments]
    assert run(["calibrate", "import", *given]) == 2
    assert re.search(problem, capsys.readouterr().err)


def test_the_machine_can_be_named(tables, tmp_path) -> None:
    folder = tables(
        decode={**decode_rows(), "device": "mine"},
        gemm={**gemm_rows(), "device": "mine"},
        prefill={**prefill_rows(), "device": "mine"},
        comm={**reduce_rows(), "device": "mine"},
    )
    out = tmp_path / "h200.yaml"
    assert run(["calibrate", "import", str(folder), "--machine", "h200", "--out", str(out), "--json"]) == 0
    assert load_profile(out).si("tiers.hbm.peak") == 4.8e12
