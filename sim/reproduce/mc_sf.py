"""MC-SF (arXiv 2502.07115): memory-constrained shortest first, against the best in hindsight and against FCFS.

SOURCE: notes on the paper. Average latency over the least in hindsight: 1.005 (all at once), 1.047 (online); 10,000
conversations of LMSYS-Chat-1M, Llama-2-70B on A100s: 32.11 against 46.47 for FCFS with the same check of memory. The
paper's solver takes 40 to 60 requests; here it is exact for five (sim.reproduce.unit_rounds). Lengths are synthetic:
lognormal with the means and medians that the paper has of the data set (prompts 40.62 and 11, outputs 85.32 and 45
tokens; recalled), as are the rate of 50 requests a second and memory for 16,492 tokens.
"""

from __future__ import annotations

from math import log, sqrt

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting
from sim.reproduce.unit_rounds import ratio

TOKENS, REQUESTS, RATE = 16_492, 2000, 50.0
LENGTHS = {
    name: {"mean": mean, "sigma": round(sqrt(2 * log(mean / median)), 3)}
    for name, mean, median in (("first_tokens", 40.62, 11), ("output_tokens", 85.32, 45))
}


def setting(scheduling: object, requests: int = REQUESTS, rate: float = RATE) -> Setting:
    """Llama-2-70B on two A100-80, `requests` conversations of one turn by a Poisson process."""
    generate = {"requests": requests, "rate": rate, "turns": 1, "system_prompts": 0, "max_input": 4096, **LENGTHS}
    return Setting(
        "llama-2-70b",
        "a100-80",
        256,
        4096,
        4096,
        {"scheduling": scheduling},
        engine={"num_gpu_blocks": TOKENS // 16, "max_num_seqs": 1024, "max_num_batched_tokens": 8192},
        hardware={"tp": 2},
        more={"trace": {"generate": generate}},
    )


def latency(m: Measured) -> float:
    """Mean latency, s."""
    return float(m.summary["e2e_ms"]["mean"]) / 1e3


MC_SF, FCFS = setting("mc_sf"), setting("memory_aware_fcfs")
FEW = tuple(setting(name, 600) for name in ("mc_sf", "memory_aware_fcfs", "shortest_first"))
WHERE = f"Llama-2-70B, two A100-80, {TOKENS:,} tokens of KV, {REQUESTS:,} requests at {RATE:g}/s of LMSYS-like lengths"
TABLES = (
    Table(
        "mc_sf",
        "section 5.1, hindsight",
        "S",
        "12 random instances of 5 requests in unit rounds, M from 30 to 50; the paper: 200 of 40 to 60",
        (
            Figure("latency over the least possible, all at once", 1.005, "x", (), lambda: ratio(online=False)),
            Figure("latency over the least possible, online arrivals", 1.047, "x", (), lambda: ratio(online=True)),
        ),
        note="the least possible is exact; instances are smaller than the paper's",
    ),
    Table(
        "mc_sf",
        "section 5.2, latency",
        "S",
        WHERE,
        (
            Figure(
                "mean latency over that of memory-aware FCFS",
                32.11 / 46.47,
                "x",
                (MC_SF, FCFS),
                lambda a, b: latency(a) / latency(b),
            ),
            Figure(
                "mean latency of memory-aware FCFS",
                46.47,
                "s",
                (FCFS,),
                latency,
                "not comparable",
                "a queue grows as long as more comes than is served: seconds depend on how many requests there are",
            ),
        ),
        note="lengths are drawn, not those of the data set: a lognormal of the same mean and median may have more long "
        "answers, and the more lengths differ, the more shortest first gains",
    ),
    Table(
        "mc_sf",
        "orders",
        "D",
        WHERE.replace(f"{REQUESTS:,}", "600"),
        (
            Figure(
                "with exact predictions nobody gives way; without the check of memory some do",
                1,
                "holds",
                FEW,
                lambda a, b, c: float(
                    a.summary["preemptions"] == b.summary["preemptions"] == 0 < c.summary["preemptions"]
                ),
            ),
            Figure(
                "the longest wait is longer than by arrival: long answers may starve",
                1,
                "holds",
                FEW[:2],
                lambda a, b: float(a.summary["queue_ms"]["max"] > b.summary["queue_ms"]["max"]),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
