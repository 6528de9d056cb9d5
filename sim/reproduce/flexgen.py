"""FlexGen (ICML 2023; FMInference/FlexLLMGen): the throughput table of its README on a T4.

SOURCE: README.md, benchmark/batch_size_table.md (batches, and where each run's KV is) and
benchmark/flexgen/bench_suite.py (shares of weights and KV), read. 512 prompt and 32 generated tokens; throughput is
generated tokens over the time of prompts and generation.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PROMPT, OUTPUT = 512, 32


def setting(
    model: str, batch: int, policies: object, framework: str = "flexgen_overlap", weights: str | None = None
) -> Setting:
    """A row of the README's table."""
    engine = {} if weights is None else {"weights_dtype": weights}
    return Setting(model, "t4", batch, PROMPT, OUTPUT, policies, framework, engine=engine)


HOST = {"name": "flexgen", "kv": 1.0}
INT4 = {"name": "int4", "fused": False}
"""`--compress-cache`: unpacked into fp16 before attention."""
SMALL = setting("opt-6.7b", 2, "full", "flexgen_sync")
SMALL_INT4 = setting("opt-6.7b", 72, INT4, "flexgen_sync", "int4")
MIDDLE = setting("opt-30b", 144, {**HOST, "weights": 0.8, "cpu_attention": True})
MIDDLE_INT4 = setting("opt-30b", 512, [INT4, {**HOST, "weights": 1.0}])
LARGE_INT4 = setting("opt-175b", 144, [INT4, {**HOST, "weights": 1.0}], weights="int4")
LARGE = setting("opt-175b", 256, {**HOST, "weights": 1.0, "cpu_attention": True})

ROWS = (
    ("OPT-6.7B", 25.26, SMALL, ""),
    ("OPT-6.7B, 4-bit", 29.12, SMALL_INT4, ""),
    ("OPT-30B", 7.32, MIDDLE, ""),
    ("OPT-30B, 4-bit", 8.38, MIDDLE_INT4, ""),
    ("OPT-175B, 4-bit", 1.12, LARGE_INT4, ""),
)
WHERE = f"T4 with 208 GB of DRAM, {PROMPT} + {OUTPUT} tokens, batches and placement of the repository's suite"
TABLES = (
    Table(
        "flexgen",
        "README throughput",
        "R",
        WHERE,
        (
            *(Figure(name, rate, "tok/s", (s,), lambda m: m.tokens_per_s, note=note) for name, rate, s, note in ROWS),
            Figure(
                "OPT-175B",
                0.69,
                "tok/s",
                (LARGE,),
                lambda m: m.tokens_per_s,
                "not comparable",
                "half of the weights and all KV are on disk there; within a sequence there is no disk tier here",
            ),
        ),
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
                (MIDDLE, MIDDLE.but(framework="flexgen_sync")),
                lambda overlap, sync: float(overlap.tokens_per_s >= sync.tokens_per_s),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
