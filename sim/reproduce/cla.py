"""Cross-layer attention (NeurIPS 2024): KV bytes when neighbouring layers share a cache; no speeds were published.

SOURCE: bytes per token of the 1B model (20 layers, one KV head of 128) from notes on the paper, checked by arithmetic.
"""

from __future__ import annotations

from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

BYTES = {"MQA": (1, 10_240), "CLA2": (2, 5120), "CLA3": (3, 3584), "CLA4": (4, 2560)}


def setting(share: int, batch: int, prompt: int = 1024) -> Setting:
    """The paper's 1B model; `share` layers use one cache."""
    policies: object = "full" if share == 1 else {"name": "cla", "share": share}
    return Setting("cla-1b", "a100-80", batch, prompt, 256, policies)


WHERE = "1B model, 20 layers, MQA with heads of 128"
TABLES = (
    Table(
        "cla",
        "bytes per token",
        "S",
        WHERE,
        tuple(
            Figure(name, nbytes, "bytes", (setting(share, 4),), lambda m: m.kv_per_sequence / m.context)
            for name, (share, nbytes) in BYTES.items()
        ),
        "arithmetic",
        quick=True,
    ),
    Table(
        "cla",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "about twice the sequences fit",
                1,
                "holds",
                (setting(1, MOST, 8000), setting(2, MOST, 8000)),
                lambda a, b: float(1.8 <= b.batch / a.batch <= 2.1),
            ),
            Figure(
                "at equal batch no faster, since each layer reads the shared cache again (within 3 %)",
                1,
                "holds",
                (setting(1, 64, 8000), setting(2, 64, 8000)),
                lambda a, b: float(abs(b.step_ms / a.step_ms - 1) < 0.03),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
