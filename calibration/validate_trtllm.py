"""Suite trtllm: published maximum-load throughput of TensorRT-LLM beside the closest settings of this engine.

The engine is another one, so there is no target. What of its settings this engine can have, it has:
- every request at once, prompts and answers of one length each (trtllm-bench throughput, ISL/OSL)
- capacity scheduler GUARANTEED_NO_EVICT, the default: a request starts only when the KV of its last token is certain to
  fit. Here: no more sequences than fit whole, so that none is preempted
- limits of the engine as it is built by default: 2048 sequences, 8192 tokens, 64 tokens to a KV block
- KV in 95 % of the memory that weights and activations leave free (--kv_cache_free_gpu_mem_fraction 0.95)
- kernels: the profile of TensorRT-LLM's own where there is one (l40s-trtllm), else vLLM's (a100-80); FP8 weights and
  cache on L40S, 16 bits on A100
Host time per step is 0: it overlaps there, and is not published. SOURCE: NVIDIA/TensorRT-LLM v0.17,
docs/source/performance/perf-overview.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.tables import read_table
from calibration.validate_runs import Row
from hw_profiles.loader import load_profile
from sim.inputs import load_inputs
from sim.run import simulate
from sim.scenario import Scenario

TABLE = "measured/trtllm_perf_overview/throughput_v0.17_a100_l40s.csv"
COLUMNS = ("model", "gpu", "weights", "kv_cache", "tp", "isl", "osl", "num_requests", "output_tok_per_s_total")
SUITE = "trtllm"
MODELS = {"Llama-3.1-8B": "llama-3.1-8b", "Llama-3.1-70B": "llama-3.1-70b", "Mistral-7B": "mistral-7b-v0.3"}
PROFILES = {"L40S": "l40s-trtllm", "A100_SXM4_80GB": "a100-80"}
FORMATS: dict[str, dict[str, str]] = {"FP8": {"weights_dtype": "fp8", "kv_dtype": "fp8"}, "FP16": {}}
"""By the table's word for weights; 16 bits are the checkpoint's bf16."""
BLOCK, SEQS, TOKENS, MEMORY = 64, 2048, 8192, 0.95


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
        free = load_inputs(_scenario(point, path, {"max_num_seqs": SEQS, "gpu_memory_utilization": 1.0})).budget.blocks
        blocks = int(MEMORY * free)
        whole = blocks // -(-(point.isl + point.osl) // BLOCK)
        limits = {"max_num_seqs": max(1, min(SEQS, whole)), "num_gpu_blocks": blocks}
        result = simulate(_scenario(point, path, limits))
    return float(result.summary["throughput"]["output_tokens_per_s"])


def _scenario(point: Point, trace: Path, limits: dict[str, Any]) -> Scenario:
    launch = load_profile(PROFILES[point.gpu]).launch.stream  # C++ dispatches, not Python
    engine = {"max_num_batched_tokens": TOKENS, "block_tokens": BLOCK, "eager_launch": f"{launch!r} s"}
    engine |= {**FORMATS[point.weights], **limits}
    document = {
        "schema": "kvsim-scenario/1",
        "trace": {"path": str(trace)},
        "model": MODELS[point.model],
        "hardware": {"profile": PROFILES[point.gpu], "tp": point.tp},
        "engine": engine,
        "tiers": [{"name": "hbm"}],
    }
    return Scenario.from_dict(document, where=point.metric)
