"""Comparative characterization of KV-cache management (arXiv 2604.05012): where full, paged KV stops being best.

SOURCE: the finding, from notes on the paper: vLLM has the highest throughput and the lowest latency while KV fits the
GPU; eviction (H2O) and offload (InfiniGen) win only under memory pressure. Its settings were not read.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

H2O = {"name": "h2o", "heavy": 0.1, "recent": 0.1}
INFINIGEN = {"name": "infinigen"}
BUDGETS = (0.05, 0.1, 0.2)
"""Of H2O, half of it each for heavy hitters and the newest: a tenth, a fifth and two fifths of the prompt."""
FITS, PRESSED = 8, 96
"""Sequences at once: their KV takes a third of what is free, and four times of it."""


def setting(policies: object, batch: int, framework: str = "vllm_paged") -> Setting:
    """Llama-2-13B on an A100-80, all requests at once."""
    return Setting("llama-2-13b", "a100-80", batch, 4000, 256, policies, framework)


def arriving(policies: object, rate: float) -> Setting:
    """The same, 120 requests with long answers by a Poisson process."""
    generate = {
        "requests": 120,
        "rate": rate,
        "turns": 1,
        "system_prompts": 0,
        "first_tokens": {"mean": 3000},
        "output_tokens": {"mean": 800},
    }
    return setting(policies, 128).but(more={"trace": {"generate": generate}})


def first(run: Measured) -> float:
    """Mean time to the first token, ms."""
    return float(run.summary["ttft_ms"]["mean"])


def best(full: Measured, *others: Measured) -> float:
    """How many of the others full KV is ahead of."""
    return float(sum(full.tokens_per_s > other.tokens_per_s for other in others))


WHERE = "Llama-2-13B, A100-80, 4000 + 256 tokens"
TABLES = (
    Table(
        "characterization",
        "crossover",
        "S",
        WHERE,
        (
            Figure(
                f"while KV fits (batch {FITS}), paged full KV is ahead of InfiniGen, and of H2O with HF's cache",
                2,
                "pairs",
                (setting("full", FITS), setting(INFINIGEN, FITS), setting(H2O, FITS, "hf_concat")),
                best,
            ),
            Figure(
                f"under pressure (batch {PRESSED}), H2O is ahead of full KV",
                1,
                "pairs",
                (setting(H2O, PRESSED), setting("full", PRESSED)),
                best,
            ),
            Figure(
                f"while KV fits, InfiniGen's first tokens come no sooner; under pressure (batch {PRESSED}) they do",
                2,
                "holds",
                (
                    setting("full", FITS),
                    setting(INFINIGEN, FITS),
                    setting("full", PRESSED),
                    setting(INFINIGEN, PRESSED),
                ),
                lambda a, b, c, d: float((b.ttft_ms >= a.ttft_ms) + (d.ttft_ms < c.ttft_ms)),
            ),
            Figure(
                f"sparsity: under pressure (batch {PRESSED}) H2O gains with every smaller budget (10, 20, 40 %)",
                2,
                "pairs",
                tuple(setting({"name": "h2o", "heavy": b, "recent": b}, PRESSED) for b in BUDGETS),
                lambda a, b, c: float((a.tokens_per_s > b.tokens_per_s) + (b.tokens_per_s > c.tokens_per_s)),
            ),
            Figure(
                "size: with 16 requests at once full KV is ahead of H2O on a 7B model, where they fit, behind on a 30B",
                2,
                "pairs",
                tuple(
                    setting(policies, 16, framework).but(model=model)
                    for model, pair in (
                        ("llama-2-7b", (("full", "vllm_paged"), (H2O, "hf_concat"))),
                        ("llama-30b", (("full", "vllm_paged"), (H2O, "vllm_paged"))),
                    )
                    for policies, framework in pair
                ),
                lambda a, b, c, d: float((a.tokens_per_s > b.tokens_per_s) + (d.tokens_per_s > c.tokens_per_s)),
            ),
            Figure(
                "request rate: full KV's first tokens come sooner than H2O's at 0.2 requests a second, and later at 2",
                2,
                "pairs",
                tuple(arriving(policies, rate) for rate in (0.2, 2.0) for policies in ("full", H2O)),
                lambda a, b, c, d: float((first(a) < first(b)) + (first(c) > first(d))),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
