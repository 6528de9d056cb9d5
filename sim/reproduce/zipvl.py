"""ZipVL (arXiv 2410.08584): prompts whose attention is among important tokens, and a cache without the others.

SOURCE: first version 2.6x prefill and half of the GPU memory (LongVA-7B), second version 2.3x prefill latency and 2.8x
decoding throughput (LLaVA-Next-13B), from the abstracts. Neither says at what length, batch or GPU.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import MOST, Setting

OUTPUT = 64
LENGTHS = (4000, 16_000, 64_000)
UNKNOWN = "neither length, batch nor GPU of the figure are in the abstract"


def setting(policies: object, prompt: int, batch: int = 1) -> Setting:
    """A language model as large as LLaVA-Next-13B's."""
    return Setting("llava-1.5-13b", "a100-80", batch, prompt, OUTPUT, policies)


PACKED = {"name": "zipvl", "others": "pack"}
FULL = {n: setting("full", n) for n in LENGTHS}
OURS = {n: setting("zipvl", n) for n in LENGTHS}


def _prefill(full: Measured, ours: Measured) -> float:
    return full.ttft_ms / ours.ttft_ms


def _held(run: Measured) -> float:
    return float(run.summary["hardware"]["hbm_budget"]["weights"]) + run.kv_per_sequence * run.batch


def _step(full: Measured, ours: Measured) -> float:
    return full.step_ms / ours.step_ms


LONGVA = Setting("qwen2.5-7b", "a100-80", 4, 64_000, OUTPUT)
WHERE = "LLaVA-1.5-13B, A100-80, paged, one sequence"
TABLES = (
    Table(
        "zipvl",
        "abstract of version 2",
        "S",
        f"{WHERE} of 64k tokens",
        (
            Figure("prefill latency", 2.3, "x", (FULL[64_000], OURS[64_000]), _prefill, note=UNKNOWN),
            Figure(
                "decoding throughput at the largest batch, 16k tokens",
                2.8,
                "x",
                tuple(setting(p, 16_000, MOST).but(output=512, at_most=64) for p in ("full", "zipvl")),
                lambda full, ours: ours.decode_per_s / full.decode_per_s,
                note=UNKNOWN,
            ),
        ),
        "not comparable",
        note=UNKNOWN,
    ),
    Table(
        "zipvl",
        "abstract of version 1",
        "S",
        "Qwen2.5-7B (LongVA-7B is a Qwen2-7B), A100-80, paged, four sequences of 64k tokens in 4 and 2 bits",
        (
            Figure(
                "GPU memory, weights and KV while decoding",
                0.5,
                "of full KV's",
                tuple(LONGVA.but(policies=p) for p in ("full", PACKED)),
                lambda full, ours: _held(ours) / _held(full),
            ),
        ),
        "not comparable",
        note=UNKNOWN,
    ),
    Table(
        "zipvl",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "a prompt gains more, the longer it is",
                2,
                "pairs",
                tuple(s for n in LENGTHS for s in (FULL[n], OURS[n])),
                lambda a, b, c, d, e, f: float((_prefill(a, b) < _prefill(c, d)) + (_prefill(c, d) < _prefill(e, f))),
            ),
            Figure(
                "products with weights remain: 16k take over three times what 4k of full KV do",
                1,
                "holds",
                (FULL[16_000], OURS[16_000], FULL[4000]),
                lambda full, ours, short: float(ours.ttft_ms > 3 * short.ttft_ms),
            ),
            Figure(
                "steps gain more, the longer the prompt",
                2,
                "pairs",
                tuple(s for n in LENGTHS for s in (FULL[n], OURS[n])),
                lambda a, b, c, d, e, f: float((_step(a, b) < _step(c, d)) + (_step(c, d) < _step(e, f))),
            ),
            Figure(
                "all of the attention is full KV, to the bit",
                1,
                "holds",
                (FULL[4000], setting({"name": "zipvl", "mass": 1.0}, 4000)),
                lambda a, b: float((a.step_ms, a.kv_bytes, a.ttft_ms) == (b.step_ms, b.kv_bytes, b.ttft_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
