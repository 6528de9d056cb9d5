"""Budget allocators: XKV, ZigZagKV, BaKlaVa and AudioKV, by what their totals come to.

SOURCE: XKV 61.6 % less KV on average, 2.1x compute efficiency and up to 5.2x throughput, ZigZagKV about 20 % of the KV,
from the abstracts; AudioKV 60 % less memory from notes on it; BaKlaVa up to 70 % recalled. None says at what length the
cache was measured, and whatever the division over layers and heads, bytes are those of the total.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Source, Table
from sim.reproduce.setting import MOST, Setting

PROMPT, OUTPUT = 8000, 64


def setting(policies: object, batch: int = 2, framework: str = "hf_concat") -> Setting:
    """Mistral-7B with Hugging Face's cache."""
    return Setting("mistral-7b-v0.3", "a100-80", batch, PROMPT, OUTPUT, policies, framework)


def ours(name: str, share: float, **options: object) -> dict[str, object]:
    """`share` of the prompt, answers not counted."""
    return {"name": name, "budget": round(PROMPT * share), **options}


def _saved(full: Measured, own: Measured) -> float:
    return 1 - own.kv_per_sequence / full.kv_per_sequence


WHERE = f"Mistral-7B, A100-80, HF cache, {PROMPT} + {OUTPUT} tokens"
PYRAMID = [1.8, 0.2]
"""Most for the first layers, least for the last, as an example of uneven parts."""


def _memory(name: str, where: str, source: Source, saved: float) -> Table:
    run = setting(ours(name, 1 - saved))
    figure = Figure("KV saved", saved, "saved", (setting("full"), run), _saved)
    return Table(name, where, source, WHERE, (figure,), "arithmetic", quick=True)


def _orders(name: str) -> Table:
    """What holds for each of them."""
    even, uneven = setting(ours(name, 0.3)), setting(ours(name, 0.3, weights=PYRAMID))
    padded = setting(ours(name, 0.3, weights=PYRAMID, storage="layers"))
    return Table(
        name,
        "limits",
        "D",
        WHERE,
        (
            Figure(
                "a total is a total, however it is divided over layers (within a millionth)",
                1,
                "holds",
                (even, uneven),
                lambda a, b: float(abs(a.kv_per_sequence / b.kv_per_sequence - 1) < 1e-6),
            ),
            Figure(
                "padded to the longest layer, 1.8 times the mean, it takes over 1.7 times as much",
                1,
                "holds",
                (uneven, padded),
                lambda a, b: float(1.7 < b.kv_per_sequence / a.kv_per_sequence < 1.8),
            ),
            Figure(
                "a budget above the model's context is full KV, to the bit",
                1,
                "holds",
                (setting("full"), setting(ours(name, 5))),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
        ),
        "ordering",
        quick=True,
    )


UNKNOWN = "model, length and baseline of the figure are not in the abstract"
XKV = (
    _memory("xkv", "abstract, memory", "S", 0.616),
    Table(
        "xkv",
        "abstract, speed",
        "S",
        WHERE,
        (
            Figure(
                "throughput, up to",
                5.2,
                "x",
                (setting("full", MOST), setting(ours("xkv", 0.384), MOST)),
                lambda a, b: b.tokens_per_s / a.tokens_per_s,
            ),
            Figure(
                "computational efficiency",
                2.1,
                "x",
                (setting("full"), setting(ours("xkv", 0.384))),
                lambda a, b: a.step_ms / b.step_ms,
            ),
        ),
        "not comparable",
        note=UNKNOWN,
    ),
    _orders("xkv"),
)
ZIGZAGKV = (_memory("zigzagkv", "abstract", "S", 0.8), _orders("zigzagkv"))
BAKLAVA = (_memory("baklava", "abstract", "M", 0.7), _orders("baklava"))
AUDIOKV = (
    _memory("audiokv", "memory", "S", 0.6),
    Table(
        "audiokv",
        "sequences that fit",
        "D",
        f"{WHERE}, paged",
        (
            Figure(
                "at 40 % of the KV",
                2.5,
                "x",
                (setting("full", MOST, "vllm_paged"), setting(ours("audiokv", 0.4), MOST, "vllm_paged")),
                lambda a, b: b.batch / a.batch,
            ),
        ),
        "arithmetic",
    ),
    _orders("audiokv"),
)
