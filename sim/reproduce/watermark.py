"""vLLM's watermark: KV blocks kept free when a request starts, so that fewer are preempted.

SOURCE: vllm-project/vllm pull 44594 (2026-06-05), its description: Qwen2.5-7B-Instruct on one GB200, 16 GiB of KV
(299,584 tokens), no prefix caching, max_num_seqs 256, chunked prefill; 450 random prompts of about 1,000 tokens and
answers of about 5,000 (both +-20 %), 128 at a time. `vllm bench serve` draws lengths evenly.
"""

from __future__ import annotations

from collections.abc import Callable

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PROMPTS, AT_ONCE = 450, 128
BLOCKS = 299_584 // 16
PUBLISHED: dict[float, tuple[float, float, float, float, float]] = {
    0.0: (1065, 11582, 25.51, 40.62, 51.6),
    0.02: (400, 12134, 26.49, 18.80, 48.4),
    0.05: (187, 12167, 28.94, 17.70, 47.9),
    0.10: (168, 11835, 31.02, 17.57, 48.6),
}
"""By watermark: preemptions, output tokens/s, P99 of TTFT (s), P99 of ITL (ms), P50 of E2E (s)."""


def setting(watermark: float) -> Setting:
    """The benchmark with this share of the blocks kept free."""
    clients = {
        "clients": PROMPTS,
        "conversations": 1,
        "rounds": 1,
        "first_input_tokens": {"min": 800, "max": 1200},
        "output_tokens": {"min": 4000, "max": 6000},
        "max_parallel": AT_ONCE,
        "block_tokens": 16,
    }
    engine = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": 8192,
        "num_gpu_blocks": BLOCKS,
        "watermark": watermark,
        "gpu_memory_utilization": 0.9,
    }
    return Setting("qwen2.5-7b", "gb200", PROMPTS, 1000, 5000, engine=engine, more={"trace": {"clients": clients}})


def _preemptions(m: Measured) -> float:
    return float(m.summary["preemptions"])


READ: tuple[tuple[str, str, Callable[[Measured], float]], ...] = (
    ("preemptions", "", _preemptions),
    ("output", "tokens/s", lambda m: float(m.summary["throughput"]["output_tokens_per_s"])),
    ("TTFT P99", "s", lambda m: float(m.summary["ttft_ms"]["p99"]) / 1e3),
    ("ITL P99", "ms", lambda m: float(m.summary["itl_ms"]["p99"])),
    ("E2E P50", "s", lambda m: float(m.summary["e2e_ms"]["p50"]) / 1e3),
)


def _figures(place: int) -> tuple[Figure, ...]:
    name, unit, read = READ[place]
    return tuple(
        Figure(f"{name}, {watermark:.0%} kept free", row[place], unit, (setting(watermark),), read)
        for watermark, row in PUBLISHED.items()
    )


WHERE = "Qwen2.5-7B, GB200, 450 prompts of 1,000 + 5,000 tokens, 128 at a time, 299,584 tokens of KV"
TABLES = (
    Table("vllm_watermark", "preemptions", "R", WHERE, _figures(0), quick=True),
    Table("vllm_watermark", "throughput", "R", WHERE, _figures(1)),
    Table("vllm_watermark", "TTFT", "R", WHERE, _figures(2)),
    Table("vllm_watermark", "ITL", "R", WHERE, _figures(3)),
    Table("vllm_watermark", "E2E", "R", WHERE, _figures(4)),
    Table(
        "vllm_watermark",
        "order",
        "R",
        WHERE,
        (
            Figure(
                "with 2 % kept free half the preemptions and more tokens/s; with 10 % later first tokens than with 2 %",
                3,
                "hold",
                (setting(0.0), setting(0.02), setting(0.10)),
                lambda off, two, ten: float(
                    (_preemptions(two) < 0.5 * _preemptions(off))
                    + (two.tokens_per_s > off.tokens_per_s)
                    + (ten.summary["ttft_ms"]["p99"] > two.summary["ttft_ms"]["p99"])
                ),
            ),
        ),
        "ordering",
    ),
)
