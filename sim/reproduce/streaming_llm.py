"""StreamingLLM (ICLR 2024; mit-han-lab/streaming-llm): attention sinks and a rolling window.

SOURCE: up to 22.2x over a window that is recomputed for every token, recalled; four sinks from the repository.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

WINDOW = {"name": "streaming_llm", "sinks": 4, "window": 2044}


def setting(policies: object, prompt: int) -> Setting:
    """One sequence."""
    return Setting("longchat-7b-32k", "a100-80", 1, prompt, 64, policies, "hf_concat")


WHERE = "LongChat-7B-32k, A100-80, HF cache, one sequence, 4 sinks and a window of 2044"
TABLES = (
    Table(
        "streaming_llm",
        "abstract",
        "M",
        WHERE,
        (
            Figure(
                "over a sliding window that is computed again, up to",
                22.2,
                "x",
                (setting("full", 4096), setting(WINDOW, 16_000)),
                lambda full, ours: full.ttft_ms / ours.step_ms,
                "not comparable",
                "in the baseline's place: the prefill of a window of 4096 tokens for every token",
            ),
        ),
    ),
    Table(
        "streaming_llm",
        "limits",
        "D",
        WHERE,
        (
            Figure(
                "a step at 30k takes what one at 10k does",
                1,
                "holds",
                (setting(WINDOW, 10_000), setting(WINDOW, 30_000)),
                lambda a, b: float(abs(a.step_ms / b.step_ms - 1) < 1e-6),
            ),
            Figure(
                "memory of KV does not grow from 10k to 30k",
                1,
                "holds",
                (setting(WINDOW, 10_000), setting(WINDOW, 30_000)),
                lambda a, b: float(a.kv_per_sequence == b.kv_per_sequence),
            ),
            Figure(
                "a window above the context reads and keeps what full KV does, to the bit",
                1,
                "holds",
                (
                    setting("full", 10_000),
                    setting({"name": "streaming_llm", "sinks": 4, "window": 20_000}, 10_000),
                ),
                lambda a, b: float((a.parts["attention"], a.kv_bytes) == (b.parts["attention"], b.kv_bytes)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
