"""FlexGen (ICML 2023; FMInference/FlexLLMGen): the throughput table of its README on a T4.

SOURCE: README.md, benchmark/batch_size_table.md (batches, and where each run's KV is) and
benchmark/flexgen/bench_suite.py (shares of weights and KV), read. 512 prompt and 32 generated tokens; throughput is
generated tokens over the time of prompts and generation.
"""

from __future__ import annotations

from sim.reproduce.h2o import HOST_RATE, ON_GPU
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PROMPT, OUTPUT = 512, 32


def setting(model: str, batch: int, policies: object, framework: str = "flexgen_overlap") -> Setting:
    """A row of the README's table."""
    return Setting(model, "t4", batch, PROMPT, OUTPUT, policies, framework)


HOST = {"name": "flexgen", "weights": 1.0, "kv": 1.0, "activations": 1.0}
CPU = {**HOST, "cpu_attention": True, "host_rate": HOST_RATE}
"""`--cpu`: at the rate of H2O's logs, which were made on such a machine."""
INT4 = {"name": "int4", "fused": False}
"""`--compress-cache`: unpacked into fp16 before attention."""
SMALL = setting("opt-6.7b", 2, "full", "flexgen_sync")
IN_HBM = {"name": "flexgen", "kv": 0.0, "compress_weights": True, "overlap": False}
SMALL_INT4 = setting("opt-6.7b", 72, [INT4, IN_HBM], "flexgen_sync")
MIDDLE = setting("opt-30b", 144, {**CPU, "weights": 1 - ON_GPU, "batches": 3})
MIDDLE_INT4 = setting("opt-30b", 512, [INT4, {**HOST, "batches": 8}])
LARGE_INT4 = setting("opt-175b", 144, [INT4, {**HOST, "batches": 3, "compress_weights": True}])
DISK = {"weights": 1.0, "weights_disk": 0.5, "kv": 1.0, "kv_disk": 1.0, "batches": 8}
LARGE = setting("opt-175b", 256, {**CPU, **DISK})

ROWS = (
    ("OPT-6.7B", 25.26, SMALL),
    ("OPT-6.7B, 4-bit", 29.12, SMALL_INT4),
    ("OPT-30B", 7.32, MIDDLE),
    ("OPT-30B, 4-bit", 8.38, MIDDLE_INT4),
    ("OPT-175B", 0.69, LARGE),
    ("OPT-175B, 4-bit", 1.12, LARGE_INT4),
)
WHERE = f"T4 with 208 GB of DRAM, {PROMPT} + {OUTPUT} tokens, batches and placement of the repository's suite"
TABLES = (
    Table(
        "flexgen",
        "README throughput",
        "R",
        WHERE,
        (*(Figure(name, rate, "tok/s", (s,), lambda m: m.tokens_per_s) for name, rate, s in ROWS),),
        note="the CPU's attention (5 GB/s) and the share of the HBM rate that FlexGen's reaches (0.7) are from the "
        "logs of another paper, H2O. 4-bit rows are too fast: the profile of the T4 is from datasheets (41 TFLOP/s), "
        "while H2O's logs compute prompts at 24 TFLOP/s; and PyTorch takes more passes to unpack than bytes alone tell",
        quick=True,
    ),
    Table(
        "flexgen",
        "orders",
        "R",
        WHERE,
        (
            Figure(
                "4-bit is faster than fp16 for each model",
                2,
                "pairs",
                (SMALL, SMALL_INT4, MIDDLE, MIDDLE_INT4),
                lambda a, b, c, d: float((b.tokens_per_s > a.tokens_per_s) + (d.tokens_per_s > c.tokens_per_s)),
            ),
            Figure(
                "with overlap no slower than without",
                1,
                "holds",
                (MIDDLE, MIDDLE.but(policies={**MIDDLE.policies, "overlap": False}, framework="flexgen_sync")),
                lambda overlap, sync: float(overlap.tokens_per_s >= sync.tokens_per_s),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
