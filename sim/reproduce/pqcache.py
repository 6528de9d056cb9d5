"""PQCache (SIGMOD 2025; HugoZHL/PQCache): what the GPU's block cache saves, on an RTX 4090.

SOURCE: notes on the paper (hit ratio, TPOT savings); prompts of 4k to 24k and 30 generated tokens from the repository's
test_latency script; "PCIe 1.0 x16" in the paper's list of hardware.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

PCIE1 = {"links": {"pcie_h2d": {"bandwidth": "3 GB/s"}, "pcie_d2h": {"bandwidth": "3 GB/s"}}}
"""PCIe 1.0 x16 carries 4 GB/s less what headers of its packets take."""
PROMPT, OUTPUT = 24_000, 30
CACHES = {"4k": (4096, 0.263), "8k": (8192, 0.328)}
"""Tokens of the GPU's cache: share of TPOT saved over none."""


def setting(cache: int, prompt: int = PROMPT) -> Setting:
    """One sequence of Mistral-7B with a GPU cache of so many tokens."""
    policies = {"name": "pqcache", "cache": cache}
    return Setting("mistral-7b-v0.3", "rtx-4090", 1, prompt, OUTPUT, policies, "hf_concat", more=PCIE1)


def _saved(without: Measured, cached: Measured) -> float:
    return 1 - cached.step_ms / without.step_ms


WHERE = f"Mistral-7B, RTX 4090, PCIe 1.0 x16, one sequence of {PROMPT} + {OUTPUT} tokens, a tenth of them selected"
TABLES = (
    Table(
        "pqcache",
        "TPOT saved by the GPU cache",
        "S",
        WHERE,
        tuple(
            Figure(f"{name} tokens", saved, "of TPOT", (setting(0), setting(cache)), _saved)
            for name, (cache, saved) in CACHES.items()
        )
        + tuple(
            Figure(
                f"{name} tokens, PCIe 4.0",
                saved,
                "of TPOT",
                (setting(0).but(more={}), setting(cache).but(more={})),
                _saved,
                "not comparable",
                "another link than the paper lists",
            )
            for name, (cache, saved) in CACHES.items()
        ),
        "calibrated",
        "the share of a token's score that stays (importance data, w = 0.340) is from this paper's hit ratio: 0.6 of "
        "the tokens selected are in a cache of 4096",
        note="prompt, batch and budget of the figure are not in the notes. Over PCIe 1.0, as the paper lists its host, "
        "loads are most of a step and a cache saves more of it; over the PCIe 4.0 that the card has it saves less",
        quick=True,
    ),
    Table(
        "pqcache",
        "orders",
        "S",
        WHERE,
        (
            Figure(
                "clustering hides behind the prompt with 48 cores (TTFT within 5 % of none), not with 4",
                2,
                "holds",
                (
                    setting(4096),
                    setting(4096).but(policies={"name": "pqcache", "core_flops": 1e15}),
                    setting(4096).but(policies={"name": "pqcache", "cores": 4}),
                ),
                lambda usual, none, few: float(
                    (usual.ttft_ms < 1.05 * none.ttft_ms) + (few.ttft_ms > 1.05 * none.ttft_ms)
                ),
            ),
            Figure(
                "without the prefetch of codes it is slower",
                1,
                "holds",
                (setting(4096), setting(4096).but(policies={"name": "pqcache", "prefetch": False})),
                lambda ahead, critical: float(critical.step_ms > ahead.step_ms),
            ),
            Figure(
                "a larger cache is faster",
                2,
                "pairs",
                (setting(0), setting(4096), setting(8192)),
                lambda a, b, c: float((a.step_ms > b.step_ms) + (b.step_ms > c.step_ms)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
