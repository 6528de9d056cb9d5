"""KCache (arXiv 2404.18057): keys in HBM, values on the host.

SOURCE: +40 % throughput from the abstract; contexts of about 15k and a GPU of 64 GB and about 1 TB/s recalled.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

PROMPT, OUTPUT = 15_000, 256
MEMORY = {"gpu_memory_utilization": 0.8}
"""64 of an A100's 80 GB."""


def setting(policies: object, prompt: int = PROMPT) -> Setting:
    """As many sequences as 64 GB take."""
    return Setting("llama-2-7b", "a100-80", MOST, prompt, OUTPUT, policies, engine=MEMORY)


FULL, OURS = setting("full"), setting({"name": "kcache", "selected": 128})
WHERE = f"Llama-2-7B, {PROMPT} + {OUTPUT} tokens, as many as fit 64 GB of an A100 (the paper's GPU is not known)"
TABLES = (
    Table(
        "kcache",
        "abstract",
        "S",
        WHERE,
        (
            Figure(
                "throughput over full KV",
                1.40,
                "x",
                (FULL, OURS),
                lambda full, ours: ours.decode_per_s / full.decode_per_s,
            ),
        ),
        note="GPU, batch and N are not in the abstract: N = 128 of 32 to 128. Its scores read the keys at the HBM's "
        "own rate (1.77 TB/s), where full KV is read at that of attention (1.35): at the latter it would be 1.44",
        quick=True,
    ),
    Table(
        "kcache",
        "orders",
        "D",
        "Llama-2-7B on the same GPU",
        (
            Figure(
                "about twice the sequences fit",
                1,
                "holds",
                (FULL, OURS),
                lambda full, ours: float(1.7 <= ours.batch / full.batch <= 2.3),
            ),
            Figure(
                "at equal batch and a short context it loses",
                1,
                "holds",
                (setting("full", 500).but(batch=16), setting({"name": "kcache", "selected": 128}, 500).but(batch=16)),
                lambda full, ours: float(ours.step_ms > full.step_ms),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
