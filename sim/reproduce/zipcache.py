"""ZipCache (NeurIPS 2024; ThisisBillhe/ZipCache): compression, and latencies against accumulated-score mixed precision.

SOURCE: headlines from the abstract; 4 and 2 bits for 60 and 40 % of the tokens and recompression every 100 tokens from
the repository, read.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PROMPT, OUTPUT, BATCH = 4096, 128, 8


def setting(policies: object) -> Setting:
    """LLaMA3-8B."""
    return Setting("llama-3-8b", "a100-80", BATCH, PROMPT, OUTPUT, policies, "hf_concat")


FULL = setting("full")
OURS = setting("zipcache")
SCORED = setting({"name": "zipcache", "probes": 1.0})
WHERE = f"LLaMA3-8B, A100-80, HF cache, {PROMPT} + {OUTPUT} tokens, batch {BATCH} (the paper's is not in the abstract)"
TABLES = (
    Table(
        "zipcache",
        "abstract, compression",
        "S",
        "Mistral-7B, GSM8K: 60 % of the tokens in 4 bits, 40 % in 2",
        (
            Figure(
                "KV",
                4.98,
                "x less",
                (FULL, OURS),
                lambda full, ours: full.kv_per_sequence / ours.kv_per_sequence,
            ),
        ),
        "arithmetic",
        quick=True,
    ),
    Table(
        "zipcache",
        "abstract, latency and memory saved",
        "S",
        f"{WHERE}; over mixed precision by scores of all queries, written out",
        (
            Figure("prefill latency", 0.373, "saved", (SCORED, OURS), lambda a, b: 1 - b.ttft_ms / a.ttft_ms),
            Figure(
                "decode latency",
                0.569,
                "saved",
                (FULL, OURS),
                lambda a, b: 1 - b.step_ms / a.step_ms,
                "not comparable",
                "against fp16: the abstract's baseline is another mixed-precision cache, whose decoding was not read",
            ),
            Figure(
                "memory",
                0.198,
                "saved",
                (FULL, OURS),
                lambda a, b: 1 - b.peak_bytes / a.peak_bytes,
                "not comparable",
                "against fp16, while the baseline also holds all scores of a prompt, which are not counted here",
            ),
        ),
        quick=True,
    ),
)
