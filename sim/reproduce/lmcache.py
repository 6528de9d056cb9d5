"""LMCache (arXiv 2510.09665): documents and conversations whose KV waits in host memory.

SOURCE: abstract: up to 15x the throughput of vLLM over multi-round question answering and document analysis; truncating
contexts halves the prefix hit ratio. Models, lengths, and the trace of the latter are not said there.
"""

from __future__ import annotations

from sim.reproduce.cache_study import CacheStudy
from sim.reproduce.measure import Measured
from sim.reproduce.rows import Figure, Table
from sim.reproduce.setting import Setting

DOCUMENTS, ROUNDS = 24, 4
LENGTHS = (10_000, 20_000, 40_000)
QUESTION, ANSWER = 64, 16
SLOW = 6.0
"""GB/s of a store that is about as fast as computing: which is faster depends on the length."""
CROSSING = (1_000, 4_000, 16_000, 48_000)
TOKEN = 131_072
TRACE, WINDOW = "mooncake-conversation", 8192


def lmcache(**options: object) -> dict[str, object]:
    """With room for everything."""
    return {"name": "lmcache", "dram": "1 TiB", **options}


def documents(policies: object, length: int, **more: object) -> Setting:
    """Questions about documents, all of which are read before one is asked about again."""
    trace = {
        "clients": DOCUMENTS,
        "conversations": 1,
        "rounds": ROUNDS,
        "first_input_tokens": length,
        "input_tokens": QUESTION,
        "output_tokens": ANSWER,
        "barrier": True,
        "block_tokens": 64,
    }
    return Setting(
        "llama-3.1-8b",
        "h100-sxm",
        256,
        length + ROUNDS * (QUESTION + ANSWER),
        ANSWER,
        policies,
        engine={"prefix_caching": True, "gpu_memory_utilization": 0.9},
        more={"trace": {"clients": trace}, **more},
        kv_pool=f"{6 * length * TOKEN} B",
    )


def one(policies: object, length: int) -> Setting:
    """One request at a time, over a slow link."""
    trace = {
        "clients": 3,
        "conversations": 1,
        "rounds": 2,
        "first_input_tokens": length,
        "input_tokens": 15,
        "output_tokens": 1,
        "max_parallel": 1,
        "barrier": True,
        "block_tokens": 64,
    }
    return Setting(
        "llama-3.1-8b",
        "h100-sxm",
        256,
        length + 32,
        1,
        policies,
        engine={"prefix_caching": True, "gpu_memory_utilization": 0.9},
        more={
            "trace": {"clients": trace},
            "links": {"pcie_h2d": {"bandwidth": f"{SLOW} GB/s"}} if policies != "full" else {},
        },
        kv_pool=f"{(length * 7 // 5 // 64 * 64 + 256) * TOKEN} B",
    )


def _throughput(m: Measured) -> float:
    """Requests/s of the rounds after the first."""
    rounds = m.summary["rounds"]
    requests = sum(row["requests"] for row in rounds[1:])
    return float(requests / (rounds[-1]["end_s"] - rounds[1]["start_s"]))


def _second(m: Measured) -> float:
    """Mean TTFT of the second round, s."""
    return float(m.summary["rounds"][1]["ttft_ms"]["mean"]) / 1e3


def _gains(*runs: Measured) -> list[float]:
    half = len(runs) // 2
    return [_throughput(ours) / _throughput(plain) for plain, ours in zip(runs[:half], runs[half:], strict=True)]


def _agree(*runs: Measured) -> float:
    """Lengths at which loading is faster than computing if, and only if, bytes / rate is less than what the computing
    of the same tokens takes."""
    half = len(runs) // 2
    agree = 0
    for plain, ours in zip(runs[:half], runs[half:], strict=True):
        loaded = ours.summary["rounds"][1]["hit_tokens"]["dram"] / 3 * TOKEN / (SLOW * 1e9)
        rest = _second(ours) - loaded
        agree += (_second(ours) < _second(plain)) == (loaded < _second(plain) - rest)
    return float(agree)


def _both(*runs: Measured) -> float:
    half = len(runs) // 2
    faster = [_second(ours) < _second(plain) for plain, ours in zip(runs[:half], runs[half:], strict=True)]
    return float(not faster[0] and faster[-1] and faster == sorted(faster))


SWEEP = (*(documents("full", n) for n in LENGTHS), *(documents(lmcache(), n) for n in LENGTHS))
CROSS = (*(one("full", n) for n in CROSSING), *(one(lmcache(), n) for n in CROSSING))
WAYS = tuple(documents(lmcache(**way), 20_000) for way in ({}, {"asynchronous": True}, {"layerwise": True}))
WHERE = f"Llama-3.1-8B, H100-SXM, {DOCUMENTS} documents of {LENGTHS[0]:,} to {LENGTHS[-1]:,} tokens, HBM for six"
TABLES = (
    Table(
        "lmcache",
        "abstract, throughput",
        "S",
        WHERE,
        (Figure("more requests/s than vLLM, up to", 15.0, "x", SWEEP, lambda *r: max(_gains(*r))),),
        "not comparable",
        note="the abstract says neither models nor lengths; here questions of 64 tokens and answers of 16",
        quick=True,
    ),
    Table(
        "lmcache",
        "abstract, truncation",
        "S",
        f"the conversation trace of Mooncake, prompts cut to their last {WINDOW:,} tokens, an unlimited cache",
        (
            Figure(
                "hits with truncation over hits without",
                0.5,
                "x",
                (CacheStudy(TRACE, window=WINDOW), CacheStudy(TRACE)),
                lambda cut, whole: cut.ratio / whole.ratio,
            ),
        ),
        "not comparable",
        note="neither trace nor window is said; with windows of 4,096 and 16,384 tokens it is 0.42 and 0.66",
        quick=True,
    ),
    Table(
        "lmcache",
        "orders",
        "D",
        WHERE,
        (
            Figure(
                "the longer the document, the more is gained",
                len(LENGTHS) - 1,
                "pairs",
                SWEEP,
                lambda *r: float(sum(a < b for a, b in zip(_gains(*r), _gains(*r)[1:], strict=False))),
            ),
            Figure(
                f"from a store of {SLOW} GB/s short prompts are slower to load than to compute, long ones faster",
                1,
                "holds",
                CROSS,
                _both,
            ),
            Figure(
                "and which of them is told by bytes / rate and the time of their prefill",
                len(CROSSING),
                "lengths",
                CROSS,
                _agree,
            ),
            Figure(
                "the default, which holds up the batch, has the latest first tokens of the three ways to load",
                2,
                "pairs",
                WAYS,
                lambda sync, *other: float(sum(_second(sync) > _second(m) for m in other)),
            ),
        ),
        "ordering",
        quick=True,
    ),
)
