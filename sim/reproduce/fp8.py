"""FP8 KV: half the bytes of a 16-bit cache (vLLM, `--kv-cache-dtype fp8`); no publication's figures.

SOURCE: arithmetic.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting


def setting(policies: object, batch: int) -> Setting:
    """Llama-3.1-8B on an H100."""
    return Setting("llama-3.1-8b", "h100-sxm", batch, 8000, 256, policies)


WHERE = "Llama-3.1-8B, H100, 8000 + 256 tokens"
TABLES = (
    Table(
        "fp8",
        "bytes",
        "D",
        WHERE,
        (
            Figure(
                "KV",
                2.0,
                "x less",
                (setting("full", 16), setting("fp8", 16)),
                lambda a, b: a.kv_per_sequence / b.kv_per_sequence,
            ),
            Figure(
                "sequences that fit",
                2.0,
                "x",
                (setting("full", MOST), setting("fp8", MOST)),
                lambda a, b: b.batch / a.batch,
            ),
        ),
        "arithmetic",
        quick=True,
    ),
)
