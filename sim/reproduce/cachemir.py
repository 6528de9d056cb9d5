"""Cachemir: an operation-count model of encrypted inference with a KV cache.

SOURCE: less than 100 s per token of Llama-3-8B and 48.83x and 67.16x over MOAI and THOR on CPUs from the abstract; a
layer in 1916 ms and 32 layers in 84.3 s of a third-party port on an RTX 5090 from its README, read.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting


def setting(prompt: int, policies: object = "cachemir") -> Setting:
    """One sequence on the GPU that is nearest to an RTX 5090 here; its kernels hardly matter."""
    return Setting("llama-3-8b", "rtx-pro-6000", 1, prompt, 4, policies)


SHORT, LONG = setting(64), setting(512)
FREE = {"name": "cachemir", "switch": "0 s", "bootstrap": "0 s"}


def _per_token(run: Measured) -> float:
    return run.kv_per_sequence / run.context / run.token_bytes


WHERE = "Llama-3-8B, one sequence of 64 tokens, operations counted, the port's time for a key switch and a bootstrap"
FITTED = "the time of a bootstrap and of a key switch, from the port's breakdown of one layer"
TABLES = (
    Table(
        "cachemir",
        "third-party port",
        "R",
        WHERE,
        (
            Figure(
                "all 32 layers, int8 plaintexts",
                84.3,
                "s",
                (SHORT,),
                lambda m: m.step_ms / 1e3,
                note="32 times the port's own layer, 1.916 s, is 61.3 s; what else its forward pass does is not known",
            ),
        ),
        "calibrated",
        fitted=FITTED,
        note="a model of operation counts, not of kernels",
        quick=True,
    ),
    Table(
        "cachemir",
        "abstract",
        "S",
        WHERE,
        tuple(
            Figure(f"over {name} on a CPU", published, "x", (SHORT,), lambda m: float("nan"))
            for name, published in (("MOAI", 48.83), ("THOR", 67.16))
        ),
        "not comparable",
        note="both have no KV cache and compute the sequence again; at which length, and with which costs on a CPU, is "
        "not in the abstract",
    ),
    Table(
        "cachemir",
        "orders",
        "S",
        WHERE,
        (
            Figure("a token takes less than 100 s", 1, "holds", (SHORT,), lambda m: float(m.step_ms < 1e5)),
            Figure(
                "KV is tens of times larger, by the same factor at 64 and 512 tokens",
                1,
                "holds",
                (SHORT, LONG),
                lambda a, b: float(_per_token(a) > 10 and abs(_per_token(a) / _per_token(b) - 1) < 1e-6),
            ),
            Figure(
                "eight times the context takes less than 5 % longer",
                1,
                "holds",
                (SHORT, LONG),
                lambda a, b: float(a.step_ms < b.step_ms < 1.05 * a.step_ms),
            ),
            Figure(
                "with free operations the link bounds a step: plaintext weights cross it",
                1,
                "holds",
                (setting(64, FREE),),
                lambda m: float(m.parts["moves"] > 0.5 * m.step_ms),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
