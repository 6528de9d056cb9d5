"""SGLang HiCache: rounds of conversations that outgrow the GPU's memory, then that of the host.

SOURCE: read: the post of 2025-09-10 (lmsys.org/blog): up to 6x throughput and 80 % less TTFT over two benchmarks, of
which the figures are pictures; the second is bench_multiturn.py with Qwen3-235B-A22B on 8 x H800: 80 clients, 10 rounds
of 2,048 tokens, one token of answer, 4 requests at a time, 16 requests/s, a barrier between rounds. Mooncake's page on
the same (sglang-hicache-benchmark-results-v1): L2 of 30 GB per rank, an L3 of 760 GB; how the three setups compare.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

CLIENTS, ROUNDS, LENGTH = 80, 10, 2048
TRACE = {
    "clients": CLIENTS,
    "conversations": 1,
    "rounds": ROUNDS,
    "first_input_tokens": LENGTH,
    "input_tokens": LENGTH,
    "output_tokens": 1,
    "max_parallel": 4,
    "request_rate": 16,
    "ready_queue": "random",
    "barrier": True,
    "block_tokens": 64,
}
L2, L3 = "240 GB", "760 GB"
CARDS = {"remote_read": {"bandwidth": "174 GB/s"}, "remote_write": {"bandwidth": "168 GB/s"}}
"""Eight cards, each as fast as the device rdma-200g."""
SGLANG = {"kind": "sglang", "block_tokens": 64}


def setting(policies: object, **more: object) -> Setting:
    """Eight H100, which compute as H800 do, with 400 GB/s of NVLink between them."""
    return Setting(
        "qwen3-235b-a22b",
        "h100-sxm-sglang",
        2048,
        ROUNDS * (LENGTH + 1),
        1,
        policies,
        engine={"prefix_caching": True, **SGLANG},
        hardware={"tp": 8, "interconnect": "200 GB/s"},
        more={"trace": {"clients": TRACE}, **more},
    )


GPU = setting("full")
HOST = setting({"name": "hicache", "dram": L2})
STORE = setting({"name": "hicache", "dram": L2, "remote": L3, "prefetch_policy": "timeout"}, links=CARDS)


def _rounds(m: Measured, of: Callable[[dict[str, object]], object]) -> list[float]:
    return [float(str(of(row))) for row in m.summary["rounds"]]


def _hits(m: Measured) -> list[float]:
    return _rounds(m, lambda row: row["hit_ratio"])


def _ttft(m: Measured) -> list[float]:
    return _rounds(m, lambda row: row["ttft_ms"]["mean"])  # type: ignore[index]


def _rate(m: Measured) -> float:
    return float(m.summary["throughput"]["input_tokens_per_s"])


WHERE = f"Qwen3-235B-A22B, 8 GPUs, {CLIENTS} clients, {ROUNDS} rounds of {LENGTH:,} tokens, 4 at a time"
TABLES = (
    Table(
        "hicache",
        "post of 2025-09-10",
        "R",
        WHERE,
        (
            Figure(
                "input tokens/s, up to",
                6.0,
                "x",
                (GPU, STORE),
                lambda gpu, store: _rate(store) / _rate(gpu),
            ),
            Figure(
                "less TTFT, up to",
                0.80,
                "of it",
                (GPU, STORE),
                lambda gpu, store: max(1 - b / a for a, b in zip(_ttft(gpu), _ttft(store), strict=True)),
            ),
        ),
        "not comparable",
        note="the most over two benchmarks, whose figures are pictures; the other (DeepSeek-R1, LooGLE) is not here. "
        "Clients that send 16 requests/s limit the throughput of one that keeps up",
        quick=True,
    ),
    Table(
        "hicache",
        "Mooncake's page",
        "R",
        WHERE,
        (
            Figure(
                "L2 has lower TTFT than the GPU alone, by round (from the second)",
                ROUNDS - 1,
                "rounds",
                (GPU, HOST),
                lambda gpu, host: float(sum(b <= a for a, b in zip(_ttft(gpu)[1:], _ttft(host)[1:], strict=True))),
            ),
            Figure(
                "the store finds no more than L2 in the first three rounds",
                3,
                "rounds",
                (HOST, STORE),
                lambda host, store: float(
                    sum(abs(a - b) < 0.01 for a, b in zip(_hits(host)[:3], _hits(store)[:3], strict=True))
                ),
            ),
            Figure(
                "L2's hits fall as the rounds go on, the store's do not",
                1,
                "holds",
                (HOST, STORE),
                lambda host, store: float(_hits(host)[-1] < max(_hits(host)) and _hits(store)[-1] == max(_hits(store))),
            ),
            Figure(
                "mean TTFT: the store, then L2, then the GPU alone",
                2,
                "pairs",
                (STORE, HOST, GPU),
                lambda *r: float(
                    sum(a.summary["ttft_ms"]["mean"] < b.summary["ttft_ms"]["mean"] for a, b in itertools.pairwise(r))
                ),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
