"""Suite trtllm: published maximum-load throughput of TensorRT-LLM beside `engine.kind: tensorrt_llm`.

Nothing is fitted, and nothing is set by row but what the benchmark itself derives:
- every request at once, prompts and answers of one length each (trtllm-bench throughput, ISL/OSL)
- the engine's own defaults (guaranteed_no_evict), and as that version and its benchmark have it 64 tokens to a KV
  block, chunked context, and KV in 95 % of the memory that weights and activations leave free
- sequences and tokens of a step: `limits`, what `trtllm-bench build` derives from model, GPU and lengths
- kernels: the profile of TensorRT-LLM's own where there is one (l40s-trtllm), else vLLM's (a100-80); FP8 weights and
  cache on L40S, 16 bits on A100
- exchanges of more than two GPUs over PCIe: at what two of them exchange with, by the profile. The only public table of
  four and eight L40S was measured on a machine where they reduce 3.3 and 1.0 GB/s (aiconfigurator)
Host time per step is 0: it overlaps there, and is not published. SOURCE: NVIDIA/TensorRT-LLM v0.17,
docs/source/performance/perf-overview.md (its commands); tensorrt_llm/bench/dataclasses/configuration.py (chunking).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from calibration.tables import read_table
from calibration.validate_runs import Row
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.run import simulate
from sim.scenario import Scenario

TABLE = "measured/trtllm_perf_overview/throughput_v0.17_a100_l40s.csv"
COLUMNS = ("model", "gpu", "weights", "kv_cache", "tp", "isl", "osl", "num_requests", "output_tok_per_s_total")
SUITE = "trtllm"
MODELS = {"Llama-3.1-8B": "llama-3.1-8b", "Llama-3.1-70B": "llama-3.1-70b", "Mistral-7B": "mistral-7b-v0.3"}
PROFILES = {"L40S": "l40s-trtllm", "A100_SXM4_80GB": "a100-80"}
FORMATS: dict[str, dict[str, str]] = {"FP8": {"weights_dtype": "fp8", "kv_dtype": "fp8"}, "FP16": {}}
"""By the table's word for weights; 16 bits are the checkpoint's bf16."""
PCIE = ("L40S",)
"""GPUs without NVLink."""
MEMORY, GIB = 0.95, 2**30
ENGINE = {"kind": "tensorrt_llm", "block_tokens": 64, "free_gpu_memory_fraction": MEMORY, "chunked_context": True}


@dataclass(frozen=True)
class Point:
    """One line of the table: lengths and counts in tokens and requests, throughput in output tokens/s of all GPUs."""

    model: str
    gpu: str
    weights: str
    tp: int
    isl: int
    osl: int
    requests: int
    measured: float

    @property
    def metric(self) -> str:
        """The name of its row."""
        return f"output_tokens_per_s {self.model} {self.gpu} tp{self.tp} {self.isl}/{self.osl}"


def points(data: Path) -> Iterator[Point]:
    """The lines whose model and GPU kvsim has."""
    table = read_table(data / TABLE, COLUMNS)
    words = {name: map(str, table.text(name)) for name in COLUMNS[:3]}
    tp, isl, osl, requests, measured = (table.numbers(name) for name in COLUMNS[4:])
    for i, (model, gpu, weights) in enumerate(zip(*words.values(), strict=True)):
        if model in MODELS and gpu in PROFILES:
            ranks, before, after, count = (int(column[i]) for column in (tp, isl, osl, requests))
            yield Point(model, gpu, weights, ranks, before, after, count, float(measured[i]))


def validate_trtllm(data: Path) -> list[Row]:
    """A row for each point."""
    rows = []
    for point in points(data):
        simulated = throughput(point)
        rows.append(Row(SUITE, point.metric, point.measured, simulated, simulated / point.measured - 1, None))
    return rows


def throughput(point: Point) -> float:
    """Output tokens/s of the simulation."""
    with tempfile.TemporaryDirectory(prefix="kvsim-trtllm-") as folder:
        path = Path(folder) / "load.csv"
        path.write_text("num_prefill_tokens,num_decode_tokens\n" + f"{point.isl},{point.osl}\n" * point.requests)
        result = simulate(_scenario(point, path))
    return float(result.summary["throughput"]["output_tokens_per_s"])


def limits(point: Point) -> dict[str, int]:
    """`max_num_seqs` and `max_num_batched_tokens` of the engine that the benchmark builds for a line.

    Requests that its estimate of the memory for KV has room for, and their tokens of a step, rounded up. SOURCE:
    NVIDIA/TensorRT-LLM, tensorrt_llm/bench/build/tuning.py (calc_engine_setting, finetune_setting).
    """
    model, hbm = load_model(MODELS[point.model]), load_profile(PROFILES[point.gpu]).hbm_bytes
    width = 1 if point.weights == "FP8" else 2
    weights = model.parameters / 1e9 * width  # in 1e9 bytes, taken from GiB, as there
    token = 2 * model.layers * max(point.tp, model.kv_heads) * model.head_dim * width
    room = MEMORY * (hbm * point.tp - weights * GIB) / token
    seqs = min(room / (point.isl + point.osl), 4096)
    tokens = min(seqs * (1 + point.isl / point.osl), 32768)
    seqs_by = 32 if seqs < 256 else 128 if seqs < 1024 else 256
    tokens_by = 256 if tokens < 4096 else 512 if tokens < 8192 else 1024
    return {
        "max_num_seqs": max(64, seqs_by * ceil(seqs / seqs_by)),
        "max_num_batched_tokens": max(2048, tokens_by * ceil(tokens / tokens_by)),
    }


def _scenario(point: Point, trace: Path) -> Scenario:
    profile = load_profile(PROFILES[point.gpu])
    launch = profile.launch.stream  # C++ dispatches, not Python
    hardware: dict[str, Any] = {"profile": profile.name, "tp": point.tp}
    if point.gpu in PCIE and point.tp > 2:
        pair = profile.entries["kernels.allreduce_2.beta"].value_si
        hardware["interconnect"] = f"{pair!r} B/s"
    engine = {**ENGINE, **limits(point), **FORMATS[point.weights], "eager_launch": f"{launch!r} s"}
    document = {
        "schema": "kvsim-scenario/1",
        "trace": {"path": str(trace)},
        "model": MODELS[point.model],
        "hardware": hardware,
        "engine": engine,
        "tiers": [{"name": "hbm"}],
    }
    return Scenario.from_dict(document, where=point.metric)
