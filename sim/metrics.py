"""The metrics of a run, declared once: console, report and `kvsim list metrics` render this table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One headline number: where it is found in the summary, and what it means."""

    key: str
    label: str
    unit: str
    better: str
    """"lower", "higher" or "" where neither is better."""
    definition: str
    value: Callable[[Summary], float | None]
    shown: Callable[[Summary], bool] = lambda _: True
    """False for runs that do not have what it measures."""


_STATISTICS = {
    "mean": ("mean", "Mean of"),
    "p50": ("P50", "Median of"),
    "p95": ("P95", "95th percentile of"),
    "p99": ("P99", "99th percentile of"),
}


def _latency(name: str, label: str, statistic: str, definition: str) -> Metric:
    shown, over = _STATISTICS[statistic]
    return Metric(
        f"{name}_{statistic}_ms",
        f"{label}, {shown}",
        "ms",
        "lower",
        f"{over} {definition}",
        lambda s: s[f"{name}_ms"][statistic],
    )


def _reused(tier: str, label: str, how: str) -> Metric:
    """Share of the prompt tokens that came from one tier."""
    return Metric(
        f"hit_{tier}",
        f"Reused from {label}",
        "%",
        "higher",
        f"Prompt tokens {how} / prompt tokens.",
        lambda s: _percent(_share(s["prefix"]["hit_tokens"].get(tier), s["prefix"]["input_tokens"])),
        lambda s: tier in s["tiers"],
    )


def _time_share(key: str, label: str, better: str, definition: str, parts: tuple[str, ...]) -> Metric:
    """Share of the replica-seconds that the parts of `summary["time"]` make up."""
    return Metric(
        key,
        label,
        "%",
        better,
        definition,
        lambda s: _percent(_share(sum(s["time"][part] for part in parts), sum(s["time"].values()))),
    )


_TTFT = "time to first token: first token - arrival, per finished request; queue + load + prefill."
_TPOT = "time per output token: (E2E - TTFT) / (output tokens - 1), one value per request of two or more tokens."
_ITL = (
    "inter-token latency: every gap between consecutive tokens of a request, weighted by token; of tokens that one "
    "step yields together the first alone."
)
_E2E = "end-to-end time: last token - arrival, per finished request."
_QUEUE = "the waiting part of TTFT: from arrival until the first prefill chunk starts, less the load time."

METRICS: tuple[Metric, ...] = (
    _latency("ttft", "TTFT", "mean", _TTFT),
    _latency("ttft", "TTFT", "p50", _TTFT),
    _latency("ttft", "TTFT", "p99", _TTFT),
    _latency("tpot", "TPOT", "mean", _TPOT),
    _latency("tpot", "TPOT", "p95", _TPOT),
    _latency("itl", "ITL", "p99", _ITL),
    _latency("e2e", "E2E", "mean", _E2E),
    _latency("e2e", "E2E", "p99", _E2E),
    _latency("queue", "Queue", "p99", _QUEUE),
    Metric(
        "requests_per_s",
        "Throughput",
        "requests/s",
        "higher",
        "Finished requests / (last finish - first arrival).",
        lambda s: s["throughput"]["requests_per_s"],
    ),
    Metric(
        "output_tokens_per_s",
        "Output throughput",
        "tokens/s",
        "higher",
        "Generated tokens of finished requests / (last finish - first arrival).",
        lambda s: s["throughput"]["output_tokens_per_s"],
    ),
    Metric(
        "goodput_per_s",
        "Goodput",
        "requests/s",
        "higher",
        "Finished requests per second whose own latency meets every SLO bound; without an SLO, all of them.",
        lambda s: s["slo"]["goodput_per_s"],
    ),
    Metric(
        "hit_ratio",
        "Prefix hit ratio",
        "%",
        "higher",
        "Prompt tokens reused from any tier instead of being computed / prompt tokens of finished requests.",
        lambda s: _percent(s["prefix"]["hit_ratio"]),
    ),
    _reused("hbm", "HBM", "found in the GPU's own cache"),
    _reused("dram", "DRAM", "loaded from host memory"),
    _reused("cxl", "CXL memory", "loaded from memory behind CXL"),
    _reused("c2c", "C2C memory", "loaded from memory behind NVLink-C2C"),
    _reused("ssd", "SSD", "loaded from the SSD tier"),
    _reused("remote", "remote", "loaded from the remote tier"),
    Metric(
        "stored_never_loaded",
        "Stored, never loaded",
        "%",
        "lower",
        "Bytes stored in the tiers behind HBM that no request had loaded, and no prefetch fetched, when they were "
        "evicted or the run ended / "
        "bytes stored there.",
        lambda s: _percent(_never_loaded(s)),
        lambda s: len(s["tiers"]) > 1,
    ),
    Metric(
        "padding_rows",
        "Padding rows",
        "%",
        "lower",
        "Rows of decode steps whose request had ended, in static batches / all rows.",
        lambda s: _percent(s["batches"]["padding_share"]),
        lambda s: "batches" in s,
    ),
    Metric(
        "preemptions",
        "Preemptions",
        "",
        "lower",
        "Times a running request lost its KV because HBM was full, and was recomputed.",
        lambda s: s["preemptions"],
    ),
    Metric(
        "recomputed_tokens",
        "Recomputed tokens",
        "tokens",
        "lower",
        "Tokens that ran through prefill again because a preemption had dropped them.",
        lambda s: s["prefix"]["recomputed_tokens"],
    ),
    _time_share(
        "compute_share",
        "GPU busy",
        "",
        "Time in steps, less their waits for layers / replica-seconds from the start to the last finish.",
        ("compute_s", "interference_s"),
    ),
    _time_share(
        "interference_share",
        "Slowed by copies",
        "lower",
        "What copies beside them added to steps, a part of GPU busy / replica-seconds.",
        ("interference_s",),
    ),
    _time_share(
        "kv_wait_share",
        "Waiting for KV",
        "lower",
        "Nothing ran, or a step stood still, until KV had been loaded, fetched or copied away / replica-seconds.",
        ("layer_wait_s", "kv_move_s", "load_wait_s", "store_wait_s"),
    ),
    *(
        Metric(
            f"later_ttft_{statistic}_ms",
            f"TTFT after the snapshot, {_STATISTICS[statistic][0]}",
            "ms",
            "lower",
            f"{_STATISTICS[statistic][1]} time to first token of requests sent after the snapshot.",
            lambda s, statistic=statistic: s["from_snapshot"]["ttft_ms"][statistic],  # type: ignore[misc]
            lambda s: "from_snapshot" in s,
        )
        for statistic in ("mean", "p99")
    ),
    Metric(
        "later_hit_ratio",
        "Prefix hit ratio after the snapshot",
        "%",
        "higher",
        "Reused / prompt tokens of requests sent after the snapshot.",
        lambda s: _percent(s["from_snapshot"]["hit_ratio"]),
        lambda s: "from_snapshot" in s,
    ),
    Metric(
        "accepted_length",
        "Accepted length",
        "tokens",
        "higher",
        "Tokens that a sequence's verifying step yields on average: drafted ones that were right, and one more.",
        lambda s: s["speculation"]["accepted_length"],
        lambda s: "speculation" in s,
    ),
    Metric(
        "drafted_wasted",
        "Drafted, wasted",
        "%",
        "lower",
        "Drafted tokens that were wrong, or came after one that was / drafted tokens.",
        lambda s: _percent(s["speculation"]["wasted_share"]),
        lambda s: "speculation" in s,
    ),
    Metric(
        "replicas_on",
        "Replicas on, mean",
        "",
        "lower",
        "Replicas that start, serve or drain, over time: what is paid for.",
        lambda s: s["fleet"]["mean_on"],
        lambda s: "fleet" in s,
    ),
    Metric(
        "gateway_wait_p99_ms",
        "Gateway wait, P99",
        "ms",
        "lower",
        "99th percentile over the requests that no replica took when they came, of the time until one did.",
        lambda s: s["fleet"]["gateway"]["wait_ms"]["p99"],
        lambda s: "fleet" in s,
    ),
    Metric(
        "sender_wait_mean_ms",
        "Sender wait, mean",
        "ms",
        "",
        "Mean time that a request of a closed loop was ready, and its sender had to wait for a place of max_parallel "
        "or for the request rate; in no latency.",
        lambda s: 1e3 * s["trace"]["sender_wait_s"] / max(1, s["requests"]["arrived"]),
        lambda s: s["trace"].get("closed_loop", False),
    ),
    Metric(
        "prefetched_bytes",
        "Prefetched",
        "B",
        "",
        "Bytes that prefetches brought nearer to the GPU, over all tiers.",
        lambda s: s["prefetch"]["fetched_bytes"],
        lambda s: "prefetch" in s,
    ),
    Metric(
        "prefetch_used",
        "Prefetched, used",
        "%",
        "higher",
        "Prefetched bytes that a request then reused, or that were fetched on / prefetched bytes; the rest is waste.",
        lambda s: _percent(_share(s["prefetch"]["used_bytes"], s["prefetch"]["fetched_bytes"])),
        lambda s: "prefetch" in s,
    ),
    Metric(
        "prefetch_late",
        "Prefetched, late",
        "%",
        "lower",
        "Prefetched bytes still on their way when a request first came for them / prefetched bytes.",
        lambda s: _percent(_share(s["prefetch"]["late_bytes"], s["prefetch"]["fetched_bytes"])),
        lambda s: "prefetch" in s,
    ),
)


def rows(summary: Summary) -> list[dict[str, Any]]:
    """Every metric with its value, for `summary["metrics"]`, less those of tiers and policies that the run has not."""
    return [
        {
            "key": m.key,
            "label": m.label,
            "unit": m.unit,
            "better": m.better,
            "value": m.value(summary),
            "definition": m.definition,
        }
        for m in METRICS
        if m.shown(summary)
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else part / whole


def _never_loaded(summary: Summary) -> float | None:
    lower = [tier for name, tier in summary["tiers"].items() if name != "hbm"]
    return _share(sum(t["never_loaded_bytes"] for t in lower), sum(t["stored_bytes"] for t in lower))
