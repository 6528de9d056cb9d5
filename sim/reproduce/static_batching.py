"""Static batching: what a batch costs that waits for its longest sequence.

SOURCE: Orca (OSDI 2022) up to 36.9x over FasterTransformer on GPT-3 175B at equal latency, recalled.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

BATCH, MANY = 32, 256


def setting(scheduling: str, spread: bool) -> Setting:
    """256 requests, 32 at a time; outputs of 256 tokens on average, spread or all alike."""
    output: object = {"mean": 256, "sigma": 1.0, "max": 2048} if spread else 256
    return Setting(
        "llama-2-13b",
        "a100-80",
        BATCH,
        512,
        256,
        engine={"scheduling": scheduling, "max_num_batched_tokens": BATCH * 512},
        more={
            "trace": {
                "clients": {
                    "clients": MANY,
                    "rounds": 1,
                    "first_input_tokens": 512,
                    "output_tokens": output,
                    "block_tokens": 512,
                }
            }
        },
    )


WHERE = f"Llama-2-13B, A100-80, {MANY} requests of 512 tokens at once, {BATCH} at a time"
TABLES = (
    Table(
        "static_batching",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "with outputs that vary it is slower than continuous batching",
                1,
                "holds",
                (setting("fcfs", True), setting("static", True)),
                lambda c, s: float(s.total_s > 1.2 * c.total_s),
            ),
            Figure(
                "with outputs all alike it takes about the same time (within 15 %)",
                1,
                "holds",
                (setting("fcfs", False), setting("static", False)),
                lambda c, s: float(abs(s.total_s / c.total_s - 1) < 0.15),
            ),
        ),
        "ordering",
        quick=True,
    ),
    Table(
        "static_batching",
        "Orca",
        "M",
        "GPT-3 175B there, Llama-2-13B here",
        (
            Figure(
                "continuous over static, up to",
                36.9,
                "x",
                (setting("fcfs", True), setting("static", True)),
                lambda c, s: s.total_s / c.total_s,
            ),
        ),
        "not comparable",
        note="the paper compares throughput at equal latency, and engines that differ in more than scheduling",
    ),
)
