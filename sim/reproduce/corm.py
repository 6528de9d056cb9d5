"""CORM: how much of the cache the last 256 queries still care for, by the importance data alone.

SOURCE: "up to 70 %" over six tasks of LongBench from the abstract; window and recent tokens recalled. LongBench's
prompts are cut to the models' contexts: 4k of LLaMA2-7B-Chat, 16k of Vicuna-7b-v1.5-16k.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

OUTPUT, VICUNA = 256, "vicuna-7b-16k"


def setting(policies: object, prompt: int, model: str = "llama-2-7b", data: str = "recommended") -> Setting:
    """Two sequences with Hugging Face's cache."""
    more = {"importance": {"name": "synthetic", "setting": data}}
    return Setting(model, "a100-80", 2, prompt, OUTPUT, policies, "hf_concat", more=more)


def corm(window: int = 256) -> dict[str, object]:
    """As many recent tokens as queries."""
    return {"name": "corm", "window": window, "recent": window}


DATA = ("recommended", "best_log", "slow")
FULL, LLAMA = setting("full", 3500), setting(corm(), 3500)
FULL_LONG = setting("full", 15_000, VICUNA)


def _dropped(full: Measured, ours: Measured) -> float:
    """Share of the cache that is gone, its bits included."""
    return 1 - ours.kv_per_sequence / full.kv_per_sequence


WHERE = f"LLaMA2-7B, A100-80, HF cache, 3500 + {OUTPUT} tokens, window of 256"
TABLES = (
    Table(
        "corm",
        "abstract",
        "S",
        f"Vicuna-7b-16k, A100-80, HF cache, 15000 + {OUTPUT} tokens, window of 256, by setting of the importance data",
        tuple(
            Figure(
                f"KV dropped, up to ({data})",
                0.70,
                "of it",
                (FULL_LONG, setting(corm(), 15_000, VICUNA, data)),
                _dropped,
                None if data == DATA[0] else "not comparable",
                "" if data == DATA[0] else "the same figure by another setting of the importance data",
            )
            for data in DATA
        ),
        note="follows from the page process, fitted to another paper's figure (ArkVale); a bit per query, token and "
        "head is counted as memory; the longest prompts of LongBench that the model takes",
        quick=True,
    ),
    Table(
        "corm",
        "shorter contexts",
        "S",
        WHERE,
        (
            Figure(
                "KV dropped, up to",
                0.70,
                "of it",
                (FULL, LLAMA),
                _dropped,
                "not comparable",
                "the abstract gives one figure for both models and all tasks; this is LLaMA2's whole context",
            ),
        ),
    ),
    Table(
        "corm",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "a longer context keeps a smaller share",
                2,
                "pairs",
                tuple(s for n in (1000, 3500, 8000) for s in (setting("full", n), setting(corm(), n))),
                lambda a, b, c, d, e, f: float((_dropped(a, b) < _dropped(c, d)) + (_dropped(c, d) < _dropped(e, f))),
            ),
            Figure(
                "a wider window keeps more",
                1,
                "holds",
                (setting(corm(128), 3500), setting(corm(512), 3500)),
                lambda a, b: float(a.kv_per_sequence < b.kv_per_sequence),
            ),
            Figure(
                "recent tokens above the context are full KV, to the bit",
                1,
                "holds",
                (FULL, setting({"name": "corm", "recent": 4096}, 3500)),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
