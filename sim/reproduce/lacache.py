"""LaCache (ICML 2025): a ladder of places instead of scores.

SOURCE: its tables are of quality, which is not simulated; what the description and the code (GATECH-EIC/LaCache, read)
say of memory and kernels.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting


def setting(policies: object, prompt: int = 16_000) -> Setting:
    """One sequence."""
    return Setting("longchat-7b-32k", "a100-80", 1, prompt, 64, policies, "hf_concat")


OURS = {"name": "lacache", "budget": 2048}
WINDOW = {"name": "streaming_llm", "sinks": 4, "window": 2044}
SCORED = {"name": "h2o", "heavy": 1024, "recent": 1024}
WHERE = "LongChat-7B-32k, A100-80, HF cache, one sequence, 2048 tokens per layer"
TABLES = (
    Table(
        "lacache",
        "description",
        "S",
        WHERE,
        (
            Figure(
                "a step at 28k takes what one at 8k does, and its memory",
                2,
                "of both",
                (setting(OURS, 8000), setting(OURS, 28_000)),
                lambda a, b: float((abs(a.step_ms / b.step_ms - 1) < 1e-6) + (a.kv_per_sequence == b.kv_per_sequence)),
            ),
            Figure(
                "no more memory than StreamingLLM's, and steps no longer",
                2,
                "of both",
                (setting(OURS), setting(WINDOW)),
                lambda a, b: float((a.kv_per_sequence <= b.kv_per_sequence) + (a.step_ms <= b.step_ms)),
            ),
            Figure(
                "no scores: prompts take less than H2O's, and steps",
                2,
                "of both",
                (setting(OURS), setting(SCORED)),
                lambda a, b: float((a.ttft_ms < b.ttft_ms) + (a.step_ms < b.step_ms)),
            ),
            Figure(
                "a budget above the context is full KV, to the bit",
                1,
                "holds",
                (setting("full"), setting({"name": "lacache", "budget": 40_000})),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
