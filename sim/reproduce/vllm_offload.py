"""vLLM's offloading to host memory, as its post of 2026-01-08 measured it (blog.vllm.ai, kv-offloading-connector).

SOURCE: read: Llama-3.1-8B on one H100 80GB, blocks of 16 tokens, the GPU's prefix cache off. Figure 1: the TTFT of one
request falls 2 to 22 times, by its length, up to 90K tokens. Figure 2: 10,000 requests of 512 tokens, throughput grows
up to 9 times with the share that is found. The profile's rates of copies by block size are fitted to figures 3 and 4.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

LENGTHS = (512, 1024, 4096, 16_384, 65_536, 90_000)
CROWD, SHORT = 1500, 512
OFFLOAD = {"name": "vllm_cpu_offload", "dram": "1 TiB"}
TOKEN = 131_072
"""KV bytes of a token."""


def rounds(policies: object, length: int, clients: int, pool: int | None, at_once: int) -> Setting:
    """Every client sends a prompt, and when all have been answered, the same again with 16 tokens more.

    pool  KV tokens of the GPU, so few that the second prompt finds nothing there; None: all that is left
    """
    trace = {
        "clients": clients,
        "conversations": 1,
        "rounds": 2,
        "first_input_tokens": length,
        "input_tokens": 15,
        "output_tokens": 1,
        "barrier": True,
        "max_parallel": at_once,
        "block_tokens": 16,
    }
    engine = {"prefix_caching": True, "gpu_memory_utilization": 0.9, "max_num_seqs": 1024}
    return Setting(
        "llama-3.1-8b",
        "h100-sxm",
        1024,
        length + 32,
        1,
        policies,
        engine={**engine, "max_num_batched_tokens": 16_384},
        more={"trace": {"clients": trace}},
        kv_pool=None if pool is None else f"{pool * TOKEN} B",
    )


def one(policies: object, length: int) -> Setting:
    """One request at a time."""
    return rounds(policies, length, 3, length * 7 // 5 // 16 * 16 + 64, 1)


def many(policies: object) -> Setting:
    """Short requests all at once."""
    return rounds(policies, SHORT, CROWD, None, CROWD)


def _second(m: Measured) -> float:
    """Mean TTFT of the second round, ms."""
    return float(m.summary["rounds"][1]["ttft_ms"]["mean"])


def _faster(*runs: Measured) -> list[float]:
    half = len(runs) // 2
    return [_second(plain) / _second(found) for plain, found in zip(runs[:half], runs[half:], strict=True)]


SINGLE = (*(one("full", n) for n in LENGTHS), *(one(OFFLOAD, n) for n in LENGTHS))
FITTED = "rates of the H100's copies by block size, from figures 3 and 4 of the post"
WHERE = "Llama-3.1-8B, H100-SXM, blocks of 16 tokens"
TABLES = (
    Table(
        "vllm_cpu_offload",
        "fig. 1 TTFT",
        "R",
        f"{WHERE}, one request, prompts of {LENGTHS[0]} to {LENGTHS[-1]:,} tokens",
        (
            Figure("shorter, most", 22.0, "x", SINGLE, lambda *r: max(_faster(*r))),
            Figure("shorter, least", 2.0, "x", SINGLE, lambda *r: min(_faster(*r))),
        ),
        "calibrated",
        fitted=FITTED,
        note="lengths other than the longest are not said; the last 16 tokens of a prompt are new here",
        quick=True,
    ),
    Table(
        "vllm_cpu_offload",
        "fig. 2 throughput",
        "R",
        f"{WHERE}, {CROWD:,} requests of {SHORT} tokens at once (10,000 there)",
        (
            Figure(
                "all found over none, up to",
                9.0,
                "x",
                (many("full"), many(OFFLOAD)),
                lambda plain, found: (
                    found.summary["rounds"][1]["requests_per_s"] / plain.summary["rounds"][0]["requests_per_s"]
                ),
            ),
        ),
        "calibrated",
        fitted=FITTED,
        quick=True,
    ),
    Table(
        "vllm_cpu_offload",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "the longer the prompt, the more is gained",
                len(LENGTHS) - 1,
                "pairs",
                SINGLE,
                lambda *r: float(sum(a < b for a, b in zip(_faster(*r), _faster(*r)[1:], strict=False))),
            ),
            Figure(
                "what is not found costs next to nothing (first round, within 2 %)",
                1,
                "holds",
                (many("full"), many(OFFLOAD)),
                lambda plain, found: float(
                    found.summary["rounds"][0]["requests_per_s"] > 0.98 * plain.summary["rounds"][0]["requests_per_s"]
                ),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
