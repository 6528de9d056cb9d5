"""InstCache (arXiv 2411.13820): answers to instructions that a model expects, made in advance.

SOURCE: abstracts. v1: 51.34 % of LMSys is found with 4.5 GB, "which corresponds to a 2x speedup"; v2: TPOT of vLLM
falls by up to 42.0 % (LMSys) and 50.0 % (Moss). Lengths of LMSys: LMSYS-Chat-1M (arXiv 2309.11998, table 1: 69.5 tokens
per prompt and 214.5 per answer in the mean). Model, machine and rates are not in what was read: Llama-2-7B on an A100
at rates up to what it can serve.
"""

from __future__ import annotations

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

REQUESTS = 1200
LONGEST = (3072, 8192)
"""Tokens of a prompt and of an answer that the model must have room for."""
RATES = (5, 10, 15, 20)
"""Requests per second that the plain engine serves; one that it does not is OVERLOAD."""
OVERLOAD = 30


def setting(rate: float, *, cached: bool) -> Setting:
    """Single questions of LMSys's lengths at a rate."""
    trace = {
        "generate": {
            "requests": REQUESTS,
            "rate": rate,
            "turns": 1,
            "system_prompts": 0,
            "first_tokens": {"mean": 69.5, "sigma": 1.0},
            "output_tokens": {"mean": 214.5, "sigma": 0.8},
        }
    }
    policies = {"reuse": "instcache"} if cached else "full"
    engine = {"max_num_seqs": 256, "gpu_memory_utilization": 0.9}
    return Setting("llama-2-7b", "a100-80", 256, *LONGEST, policies, engine=engine, more={"trace": trace})


PLAIN, CACHED = (tuple(setting(rate, cached=cached) for rate in RATES) for cached in (False, True))


def _found(m: Measured) -> float:
    return float(m.summary["response_cache"]["hit_ratio"])


def _largest_drop(*runs: Measured) -> float:
    """The most, over the rates, by which TPOT falls of the requests that the GPU serves, %."""
    plain, cached = runs[: len(RATES)], runs[len(RATES) :]
    drops = (
        1 - c.summary["response_cache"]["gpu_tpot_mean_ms"] / p.summary["tpot_ms"]["mean"]
        for p, c in zip(plain, cached, strict=True)
    )
    return 100 * float(max(drops))


def _throughput(plain: Measured, cached: Measured) -> float:
    rates = (m.summary["throughput"]["requests_per_s"] for m in (cached, plain))
    return float(next(rates)) / float(next(rates))


FITTED = "the share of requests that 4.5 GB hold: one mean of the classes of predictability, which are synthetic"

TABLES = (
    Table(
        "instcache",
        "abstract",
        "S",
        f"lengths of LMSys, {REQUESTS} requests, Llama-2-7B, A100-80; 4.5 GB for entries of 1,000 bytes",
        (
            Figure("requests found", 51.34, "%", CACHED[:1], lambda m: 100 * _found(m)),
            Figure("load on the GPU", 2.0, "x less", CACHED[:1], lambda m: 1 / (1 - _found(m)), kind="arithmetic"),
            Figure(
                "TPOT, the most over rates (LMSys)",
                42.0,
                "% less",
                (*PLAIN, *CACHED),
                _largest_drop,
                note="of the requests that the GPU serves; it follows from the smaller batch",
            ),
            Figure(
                "TPOT, the most over rates (Moss)",
                50.0,
                "% less",
                (*PLAIN, *CACHED),
                _largest_drop,
                kind="not comparable",
                note="how much of Moss is found was not in what was read; shown with that of LMSys",
            ),
        ),
        "calibrated",
        FITTED,
        quick=True,
    ),
    Table(
        "instcache",
        "limits",
        "D",
        "the same",
        (
            Figure(
                "beyond what the plain engine serves, more than 1.2 times its throughput",
                1,
                "holds",
                (setting(OVERLOAD, cached=False), setting(OVERLOAD, cached=True)),
                lambda p, c: float(_throughput(p, c) > 1.2),
            ),
            Figure(
                "a quiet engine gains little on the requests that it serves",
                1,
                "holds",
                (PLAIN[0], CACHED[0]),
                lambda p, c: float(
                    c.summary["response_cache"]["gpu_tpot_mean_ms"] > 0.8 * p.summary["tpot_ms"]["mean"]
                ),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
