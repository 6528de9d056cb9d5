"""The summary, profile values and scenario that go with fake_tables.py: the shape of summary.json, schema 1."""

from typing import Any

import numpy as np

LINKS = ("pcie_h2d", "pcie_d2h")
KV_BYTES = 131072
GIB = 2**30
BUDGET = {
    "total": 80 * GIB,
    "usable": 72 * GIB,
    "weights": 15 * GIB,
    "activations": GIB,
    "reserved": 2 * GIB,
    "windows": 0,
    "kv": 54 * GIB,
    "blocks": 27648,
    "block_bytes": 2 * 2**20,
}


def tier(name: str, capacity: int, hits: dict[str, int], links: dict[str, Any]) -> dict[str, Any]:
    stored = links["pcie_d2h"]["bytes"]
    return {
        "count": 1,
        "capacity_bytes": capacity,
        "peak_bytes": int(0.9 * capacity),
        "stored_bytes": stored if name == "dram" else stored + links["pcie_h2d"]["bytes"],
        "loaded_bytes": hits[name] * KV_BYTES,
        "evicted_bytes": stored // 3,
        "never_loaded_bytes": stored // 4,
    }


def statistics(seconds: np.ndarray) -> dict[str, float | None]:
    v = 1e3 * seconds[np.isfinite(seconds)]
    if not len(v):
        return dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"))
    points = {f"p{p}": float(np.percentile(v, p)) for p in (50, 90, 95, 99)}
    return {"mean": float(v.mean()), **points, "max": float(v.max())}


def make_summary(
    requests: dict[str, np.ndarray],
    transfers: dict[str, np.ndarray],
    replicas: int,
    seed: int,
    slo: dict[str, float],
    capacity: dict[str, int],
) -> dict[str, Any]:
    ok = requests["status"] == "finished"
    span = float(np.nanmax(requests["finish_s"], initial=0.0) - requests["arrival_s"].min())
    done, span = int(ok.sum()), max(span, 1e-9)
    stats = {f"{m}_ms": statistics(requests[f"{m}_s"][ok]) for m in ("ttft", "tpot", "e2e", "queue")}
    stats["itl_ms"] = stats["tpot_ms"]
    inputs = int(requests["input_tokens"][ok].sum())
    hits = {t: int(requests[f"hit_{t}_tokens"][ok].sum()) for t in ("hbm", "dram")}
    targets = {}
    for key, limit in slo.items():
        metric, _, stat = key.partition("_")
        value = stats[f"{metric}_ms"][stat]
        targets[key] = {"target_ms": limit, "value_ms": value, "met": value is not None and value <= limit}
    rate = done / span
    links = {}
    for name in LINKS:
        rows = np.asarray(transfers["link"]) == name
        busy = float((transfers["end_s"] - transfers["start_s"])[rows].sum())
        links[name] = {
            "bytes": int(transfers["bytes"][rows].sum()),
            "busy_s": busy,
            "utilization": busy / span / replicas,
            "queue_p99_ms": 1.0,
        }
    metrics = [
        (
            "ttft_p50",
            "TTFT p50",
            "ms",
            "lower",
            stats["ttft_ms"]["p50"],
            "First token minus arrival, median.",
        ),
        (
            "ttft_p99",
            "TTFT p99",
            "ms",
            "lower",
            stats["ttft_ms"]["p99"],
            "First token minus arrival, 99th percentile.",
        ),
        (
            "tpot_p50",
            "TPOT p50",
            "ms",
            "lower",
            stats["tpot_ms"]["p50"],
            "(E2E minus TTFT) / (output tokens minus 1), one value a request, median.",
        ),
        ("tpot_p95", "TPOT p95", "ms", "lower", stats["tpot_ms"]["p95"], "As above, 95th percentile."),
        (
            "e2e_p99",
            "E2E p99",
            "ms",
            "lower",
            stats["e2e_ms"]["p99"],
            "Last token minus arrival, 99th percentile.",
        ),
        ("requests_per_s", "Throughput", "requests/s", "higher", rate, "Finished requests / duration."),
        (
            "output_tokens_per_s",
            "Output tokens",
            "tokens/s",
            "higher",
            float(requests["output_tokens"][ok].sum()) / span,
            "Output tokens of finished requests / duration.",
        ),
        (
            "hit_ratio",
            "Prefix hit ratio",
            "ratio",
            "higher",
            sum(hits.values()) / max(inputs, 1),
            "Prompt tokens whose KV was found in any tier / all prompt tokens.",
        ),
        (
            "h2d_bytes",
            "Bytes loaded",
            "B",
            "lower",
            links["pcie_h2d"]["bytes"],
            "KV bytes moved toward the GPUs.",
        ),
        ("preemptions", "Preemptions", "", "lower", 0, "Running requests put back into the queue."),
    ]
    return {
        "schema": "kvsim-summary/1",
        "version": "0.1.0",
        "config_sha256": "9f2c51e07ab4" + "0" * 52,
        "seed": seed,
        "requests": {"arrived": len(ok), "finished": done, "rejected": len(ok) - done},
        "duration_s": span,
        **stats,
        "throughput": {
            "requests_per_s": rate,
            "input_tokens_per_s": inputs / span,
            "output_tokens_per_s": float(requests["output_tokens"][ok].sum()) / span,
        },
        "prefix": {
            "input_tokens": inputs,
            "hit_ratio": sum(hits.values()) / max(inputs, 1),
            "hit_tokens": hits,
            "computed_tokens": inputs - sum(hits.values()),
            "computed_again_tokens": (inputs - sum(hits.values())) // 5,
            "recomputed_tokens": 0,
        },
        "tiers": {t: tier(t, c, hits, links) for t, c in capacity.items()},
        "links": links,
        "time": {"compute_s": 1.0, "load_wait_s": 0.1, "store_wait_s": 0.0, "idle_s": 0.2},
        "preemptions": 0,
        "slo": {
            "targets": targets,
            "met": all(t["met"] for t in targets.values()) if targets else None,
            "attainment": 0.982 if targets else None,
            "goodput_per_s": 0.982 * rate if targets else None,
        },
        "profile": {
            "name": "h100-sxm",
            "kind": "public_fit",
            "widest_uncertainty": 0.5,
            "extrapolated_fraction": 0.031,
        },
        "simulator": {"wall_s": 3.0, "cpu_s": 2.9, "events": 1, "requests_per_cpu_s": 4000.0},
        "model": {"name": "llama-3.1-8b"},
        "hardware": {
            "profile": "h100-sxm",
            "replicas": replicas,
            "tp": 1,
            "pp": 1,
            "gpus": replicas,
            "kv_bytes_per_token": KV_BYTES,
            "hbm_budget": BUDGET,
        },
        "warnings": ["Some arrivals share a timestamp: they were spread over 3 s."],
        "metrics": [
            dict(zip(("key", "label", "unit", "better", "value", "definition"), m, strict=True)) for m in metrics
        ],
    }


PROFILE = [
    {
        "path": "capacity.hbm_bytes",
        "value_si": 85899345920,
        "si_unit": "B",
        "text": "80 GiB",
        "src": "ds",
        "source": "vendor datasheet",
        "rel": None,
    },
    {
        "path": "links.pcie_h2d.beta",
        "value_si": 52.3e9,
        "si_unit": "B/s",
        "text": "52.3 GB/s",
        "src": "vllmblog",
        "source": "figures 3 and 4 of a public post on KV offloading, digitised ± 0.3 GB/s",
        "rel": 0.05,
    },
    {
        "path": "kernels.prefill_attn.F",
        "value_si": 686e12,
        "si_unit": "FLOP/s",
        "text": "686 TFLOP/s",
        "src": "fit",
        "source": "fit of public kernel timings",
        "rel": 0.1,
    },
]
SCENARIO = """schema: kvsim-scenario/1
trace: {name: mooncake-conversation, spread_arrivals: 3 s}
model: llama-3.1-8b
hardware: {profile: h100-sxm, replicas: %d, tp: 1, gpus_per_node: 8}
tiers:
- {name: hbm}
- {name: dram, capacity: 2 TiB, shared: node}
policies: {eviction: lru, offload: write_through}
slo: {ttft_p99: 30 s, tpot_p95: 50 ms}
seed: %d
"""
