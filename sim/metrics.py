"""The metrics of a run, declared once: console, report and `kvsim list metrics` render this table."""

from __future__ import annotations

from typing import Any

from sim.metric import STATISTICS, Metric, Summary, latency, never_loaded, percent, reused, share_of, time_share

_TTFT = "time to first token: first token - arrival, per finished request; queue + load + prefill."
_TPOT = "time per output token: (E2E - TTFT) / (output tokens - 1), one value per request of two or more tokens."
_ITL = (
    "inter-token latency: every gap between consecutive tokens of a request, weighted by token; of tokens that one "
    "step yields together the first alone."
)
_E2E = "end-to-end time: last token - arrival, per finished request."
_QUEUE = "the waiting part of TTFT: from arrival until the first prefill chunk starts, less the load time."

METRICS: tuple[Metric, ...] = (
    latency("ttft", "TTFT", "mean", _TTFT),
    latency("ttft", "TTFT", "p50", _TTFT),
    latency("ttft", "TTFT", "p99", _TTFT),
    latency("tpot", "TPOT", "mean", _TPOT),
    latency("tpot", "TPOT", "p95", _TPOT),
    latency("itl", "ITL", "p99", _ITL),
    latency("e2e", "E2E", "mean", _E2E),
    latency("e2e", "E2E", "p99", _E2E),
    latency("queue", "Queue", "p99", _QUEUE),
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
        lambda s: percent(s["prefix"]["hit_ratio"]),
    ),
    reused("hbm", "HBM", "found in the GPU's own cache"),
    reused("dram", "DRAM", "loaded from host memory"),
    reused("cxl", "CXL memory", "loaded from memory behind CXL"),
    reused("c2c", "C2C memory", "loaded from memory behind NVLink-C2C"),
    reused("ssd", "SSD", "loaded from the SSD tier"),
    reused("remote", "remote", "loaded from the remote tier"),
    Metric(
        "stored_never_loaded",
        "Stored, never loaded",
        "%",
        "lower",
        "Bytes stored in the tiers behind HBM that no request had loaded, and no prefetch fetched, when they were "
        "evicted or the run ended / "
        "bytes stored there.",
        lambda s: percent(never_loaded(s)),
        lambda s: len(s["tiers"]) > 1,
    ),
    Metric(
        "padding_rows",
        "Padding rows",
        "%",
        "lower",
        "Rows of decode steps whose request had ended, in static batches / all rows.",
        lambda s: percent(s["batches"]["padding_share"]),
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
    time_share(
        "compute_share",
        "GPU busy",
        "",
        "Time in steps, less their waits for layers / replica-seconds from the start to the last finish.",
        ("compute_s", "interference_s"),
    ),
    time_share(
        "interference_share",
        "Slowed by copies",
        "lower",
        "What copies beside them added to steps, a part of GPU busy / replica-seconds.",
        ("interference_s",),
    ),
    time_share(
        "kv_wait_share",
        "Waiting for KV",
        "lower",
        "Nothing ran, or a step stood still, until KV had been loaded, fetched or copied away / replica-seconds.",
        ("layer_wait_s", "kv_move_s", "load_wait_s", "store_wait_s"),
    ),
    *(
        Metric(
            f"later_ttft_{statistic}_ms",
            f"TTFT after the snapshot, {STATISTICS[statistic][0]}",
            "ms",
            "lower",
            f"{STATISTICS[statistic][1]} time to first token of requests sent after the snapshot.",
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
        lambda s: percent(s["from_snapshot"]["hit_ratio"]),
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
        lambda s: percent(s["speculation"]["wasted_share"]),
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
        lambda s: percent(share_of(s["prefetch"]["used_bytes"], s["prefetch"]["fetched_bytes"])),
        lambda s: "prefetch" in s,
    ),
    Metric(
        "prefetch_late",
        "Prefetched, late",
        "%",
        "lower",
        "Prefetched bytes still on their way when a request first came for them / prefetched bytes.",
        lambda s: percent(share_of(s["prefetch"]["late_bytes"], s["prefetch"]["fetched_bytes"])),
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
