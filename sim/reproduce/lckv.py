"""LCKV (ACL 2024; whyNLP/LCKV): table 1, the most sequences that fit and their throughput.

SOURCE: the paper's table 1, read. The models are Llama of the given sizes with random weights, run with Hugging Face's
cache, which concatenates: twice the KV in memory, three times in traffic (kv-cache copy at each step).
"""

from __future__ import annotations

from collections.abc import Mapping

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

ROWS = (
    # GPU, model, prompt, generated: (batch, tokens/s) of Llama, of LCKV with w = 2, with w = 10
    ("rtx-3090", "tinyllama-1.1b", 5, 8187, ((48, 1424.96), (384, 4113.37), (119, 2374.05))),
    ("rtx-3090", "tinyllama-1.1b", 5, 2043, ((239, 5142.86), (1150, 10033.40), (289, 7239.92))),
    ("rtx-3090", "llama-2-7b", 5, 8187, ((1, 32.02), (12, 151.91), (4, 83.80))),
    ("rtx-3090", "llama-2-7b", 2048, 2048, ((2, 56.98), (23, 171.65), (8, 119.68))),
    ("rtx-3090", "llama-2-7b", 5, 2043, ((5, 140.88), (64, 534.02), (16, 315.38))),
    ("rtx-3090", "llama-2-7b", 512, 512, ((9, 225.31), (95, 378.89), (32, 380.60))),
    ("rtx-3090", "llama-2-7b", 512, 1024, ((7, 174.11), (72, 401.92), (16, 310.05))),
    ("rtx-3090", "llama-30b", 512, 1024, ((4, 0.23), (83, 5.99), (23, 1.63))),
    ("a100-80", "llama-2-7b", 2048, 2048, ((15, 141.10), (128, 421.02), (42, 315.09))),
    ("a100-80", "llama-30b", 2048, 2048, ((1, 14.10), (32, 108.29), (8, 77.65))),
)
COLUMNS = ("Llama", "LCKV w=2", "LCKV w=10")
WARM = (None, 2, 10)
OFFLOADED = "llama-30b on rtx-3090"
OFFLOAD = {"links": {"pcie_h2d": {"bandwidth": "3.75 GB/s"}}}
"""Fitted: the rate of Accelerate's offload, from Llama-30B's own row (17.4 s a step for 65 GB of weights): copies
module by module, from memory that is not page-locked."""
LAUNCH_3090 = "20 us"
"""Fitted: host time per kernel. One sequence of the 7B model takes 31.2 ms a step there, in 32 x 48 launches."""
FITTED = (
    "host time per kernel on the RTX 3090's host (20 us, from the 7B row of one sequence); the rate of offloaded "
    "weights (3.75 GB/s, from Llama-30B's row); the share of the HBM rate "
    "that eager attention reaches (engine.framework: hf_concat), from the A100's rows with warm-up layers"
)


def setting(gpu: str, model: str, prompt: int, output: int, warm: int | None) -> Setting:
    """As many sequences as fit; `warm` layers keep a cache of their own (None: all do)."""
    more: Mapping[str, object] = {}
    engine = {"eager_launch": LAUNCH_3090} if gpu == "rtx-3090" else {}
    policies: list[object] = [] if warm is None else [{"name": "lckv", "warmup": warm}]
    if f"{model} on {gpu}" == OFFLOADED:
        policies.append({"name": "flexgen", "weights": 1.0, "kv": 0.0, "overlap": False})
        more = OFFLOAD
    return Setting(model, gpu, MOST, prompt, output, policies or "full", "hf_concat", engine=engine, more=more)


def _name(gpu: str, model: str, prompt: int, output: int) -> str:
    return f"{gpu} {model} {prompt}+{output}"


def _cells() -> list[tuple[str, int, float, Setting]]:
    return [
        (f"{_name(*row[:4])}, {column}", batch, rate, setting(*row[:4], warm))
        for row in ROWS
        for column, warm, (batch, rate) in zip(COLUMNS, WARM, row[4], strict=True)
    ]


BATCHES = tuple(Figure(name, batch, "seqs", (s,), lambda m: m.batch) for name, batch, _, s in _cells())
RATES = tuple(Figure(name, rate, "tok/s", (s,), lambda m: m.tokens_per_s) for name, _, rate, s in _cells())
GAINS = tuple(
    Figure(
        f"{_name(*row[:4])}, {column}",
        row[4][k][1] / row[4][0][1],
        "x",
        (setting(*row[:4], None), setting(*row[:4], WARM[k])),
        lambda dense, shared: shared.tokens_per_s / dense.tokens_per_s,
    )
    for row in ROWS
    for k, column in ((1, COLUMNS[1]), (2, COLUMNS[2]))
)
SLOW = (
    "Llama-7B's own row on the A100 (106 ms a step for 24 GB of KV read and twice that copied) is slower than its "
    "bytes and the same kernels with LCKV explain, so gains over it come out low"
)
TINY = "with little KV and a thousand sequences memory goes to activations and the allocator, which are not counted so"
WHERE = "HF cache, random weights, prompt + generated tokens as named, the most sequences that fit"

TABLES = (
    Table("lckv", "table 1 throughput over Llama", "R", WHERE, GAINS, "calibrated", FITTED, SLOW, quick=True),
    Table("lckv", "table 1 most sequences", "R", WHERE, BATCHES, note=TINY, quick=True),
    Table("lckv", "table 1 throughput", "R", WHERE, RATES, "calibrated", FITTED, SLOW, quick=True),
)
