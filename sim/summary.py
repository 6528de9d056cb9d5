"""summary.json: what a run came to (schema kvsim-summary/1)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from sim import metrics
from sim.assumptions import assumptions
from sim.attribution_summary import attribution
from sim.caveats import caveats
from sim.cluster import Cluster
from sim.disaggregation_summary import disaggregation
from sim.fields import definitions
from sim.fleet.summary import fleet_summary, replica_time
from sim.front_reuse import index_summary, response_summary
from sim.lost_reuse import computed_again
from sim.provenance import profile_summary
from sim.quantiles import latency_ms, pick
from sim.queues import queue_lengths
from sim.rounds_summary import by_round
from sim.snapshot_summary import since
from sim.speculation_summary import speculation
from sim.tables import numbers
from sim.tier_summary import link_sums, prefetch_sums, tier_sums
from sim.turns import by_turn
from sim.within_summary import add_to_links, within

SCHEMA = "kvsim-summary/1"


def summarize(
    cluster: Cluster, requests: pa.Table, steps: pa.Table, config_sha256: str, version: str
) -> dict[str, Any]:
    """The summary of a finished run; latencies in ms, everything else in SI units. `simulator` is added by the run."""
    spec, inputs = cluster.scenario.spec, cluster.inputs
    columns = {name: numbers(requests, name) for name in requests.column_names if name not in ("status", "reason")}
    finished = ~np.isnan(columns["finish_s"])
    count = int(finished.sum())
    duration = _duration(columns)
    span = duration + float(columns["arrival_s"].min(initial=0.0))
    served = finished & (columns["replica"] >= 0)  # not by a cache of answers, where nobody looks for a prefix
    seen = {**columns, "admit_s": np.where(finished & ~served, np.nan, columns["admit_s"])}
    again = computed_again(cluster.trace, seen, spec.engine.block_tokens)
    by_name = dict(zip(cluster.tier_names, cluster.tiers, strict=True))
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "version": version,
        "config_sha256": config_sha256,
        "seed": spec.seed,
        "requests": {"arrived": len(finished), "finished": count, "rejected": len(finished) - count},
        "duration_s": duration,
        **{f"{name}_ms": latency_ms(columns[f"{name}_s"]) for name in ("ttft", "tpot")},
        "itl_ms": _itl(cluster),
        **{f"{name}_ms": latency_ms(columns[f"{name}_s"]) for name in ("e2e", "queue", "load", "prefill")},
        "attribution": attribution(columns, finished, cluster.tier_names),
        "throughput": {
            "requests_per_s": _rate(count, duration),
            "input_tokens_per_s": _rate(int(columns["input_tokens"][finished].sum()), duration),
            "output_tokens_per_s": _rate(int(columns["output_tokens"][finished].sum()), duration),
        },
        "prefix": _prefix(cluster, columns, served, again),
        "tiers": {tier.name: tier_sums(by_name[tier.name]) for tier in spec.tiers},
        "links": link_sums(cluster, duration),
        "time": _time(cluster, span),
        "replica_time": replica_time(cluster, steps, span),
        "queue": queue_lengths(requests, cluster.preemptions, span),
        "preemptions": sum(len(r.batch.preemptions) for r in cluster.replicas),
    }
    if (after := since(inputs.snapshot, cluster.scenario, columns, finished)) is not None:
        summary["from_snapshot"] = after
    if rounds := by_round(cluster, columns, finished, again):
        summary["rounds"] = rounds
    if (of_sequences := within(cluster)) is not None:
        summary["within"] = of_sequences
        add_to_links(cluster, summary["links"], duration)
    if (drafts := speculation(cluster, steps)) is not None:
        summary["speculation"] = drafts
    if (fleet := fleet_summary(cluster, requests)) is not None:
        summary["fleet"] = fleet
    if (pools := disaggregation(cluster, requests, span)) is not None:
        summary["disaggregation"] = pools
    prefetch = spec.policies.prefetch
    if prefetch is not None and prefetch.name != "none":
        summary["prefetch"] = prefetch_sums(prefetch.name, summary["tiers"].values())
    if cluster.front.responses is not None:
        summary["response_cache"] = response_summary(cluster.front.responses, columns, finished)
    if cluster.front.index is not None:
        summary["metadata_index"] = index_summary(cluster.front.index, span)
    if spec.engine.scheduling == "static":
        summary["batches"] = _batches(columns, finished, steps)
    if inputs.footprint is not None and not inputs.footprint.host.zero:
        peak = max(r.batch.host.peak for r in cluster.replicas)
        summary["host_kv"] = {"limit_bytes": inputs.host_limit, "peak_bytes": peak}
    if (priorities := cluster.trace.priorities) is not None and spec.engine.scheduling == "priority":
        summary["priorities"] = _by_priority(columns, priorities[columns["request_id"]])
    summary["slo"] = _slo(cluster, summary, columns, finished, duration)
    summary["profile"] = profile_summary(cluster)
    summary["model"] = _model(inputs.model)
    summary["hardware"] = {
        "profile": inputs.profile.name,
        "replicas": spec.hardware.replicas,
        "tp": spec.hardware.tp,
        "pp": spec.hardware.pp,
        "gpus": spec.hardware.replicas * spec.hardware.parallel.gpus,
        "gpu_power_limit_w": inputs.profile.power_limit,
        "kv_bytes_per_token": inputs.token_bytes,
        "hbm_budget": asdict(inputs.budget),
    }
    summary["trace"] = {"name": inputs.trace.name, "source": inputs.trace.source, "requests": len(inputs.trace)}
    if inputs.trace.closed_loop:
        summary["trace"]["closed_loop"] = True
        summary["trace"]["max_parallel"] = inputs.trace.max_parallel
        summary["trace"]["sender_wait_s"] = cluster.arrivals.sender_wait_s
        if inputs.trace.barriers is not None:
            summary["trace"]["barrier_wait_s"] = cluster.arrivals.barrier_wait_s
    if cluster.restored:
        summary["warm_start"] = {
            tier: {"restored_blocks": restored, "left_out_blocks": left_out}
            for tier, (restored, left_out) in cluster.restored.items()
        }
    summary["metrics"] = metrics.rows(summary)
    summary["definitions"] = definitions()
    summary["assumptions"] = assumptions(spec, cluster.cost, inputs)
    summary["warnings"] = caveats(cluster, summary)
    return summary


def _by_priority(columns: dict[str, np.ndarray], priorities: np.ndarray) -> list[dict[str, Any]]:
    """Requests, preemptions and latencies of each priority, those that come first at the top."""
    names = ("ttft", "tpot", "e2e", "queue")
    return [
        {
            "priority": int(priority),
            "requests": int((mine := priorities == priority).sum()),
            "preemptions": int(columns["preemptions"][mine].sum()),
            **{f"{name}_ms": latency_ms(columns[f"{name}_s"][mine]) for name in names},
        }
        for priority in np.unique(priorities)
    ]


def _batches(columns: dict[str, np.ndarray], finished: np.ndarray, steps: pa.Table) -> dict[str, Any]:
    """Static batches, and rows of their decode steps that only kept others company.

    padding_rows: those rows, summed over steps. padding_share: of all rows.
    """
    begun = np.stack([columns["replica"][finished], columns["admit_s"][finished]], axis=1)
    count = numbers(steps, "count").astype(np.int64)
    rows, padding = (int((numbers(steps, name) * count).sum()) for name in ("decode_seqs", "padding_seqs"))
    share = padding / (rows + padding) if rows else 0.0
    return {"count": len(np.unique(begun, axis=0)), "padding_rows": padding, "padding_share": share}


def _duration(columns: dict[str, np.ndarray]) -> float:
    finish = columns["finish_s"][~np.isnan(columns["finish_s"])]
    return float(finish.max() - columns["arrival_s"].min()) if len(finish) else 0.0


def _rate(amount: float, duration: float) -> float:
    return amount / duration if duration else 0.0


def _itl(cluster: Cluster) -> dict[str, float | None]:
    mean, quantiles, largest = cluster.recorder.itl_quantiles([0.5, 0.9, 0.95, 0.99])
    values = [mean, *quantiles, largest]
    names = ("mean", "p50", "p90", "p95", "p99", "max")
    return {name: None if value != value else 1e3 * value for name, value in zip(names, values, strict=True)}


def _prefix(
    cluster: Cluster, columns: dict[str, np.ndarray], finished: np.ndarray, again: np.ndarray | None
) -> dict[str, Any]:
    hits = {tier.name: int(columns[f"hit_{tier.name}_tokens"].sum()) for tier in cluster.scenario.spec.tiers}
    total = int(columns["input_tokens"][finished].sum())
    turns = by_turn(columns, finished, cluster.tier_names)
    return {
        "input_tokens": total,
        "hit_ratio": sum(hits.values()) / total if total else 0.0,
        "hit_tokens": hits,
        "computed_tokens": int(columns["computed_tokens"].sum()),
        **({} if again is None else {"computed_again_tokens": int(again.sum())}),
        "recomputed_tokens": int(columns["recomputed_tokens"].sum()),
        **({"turns": turns} if turns else {}),
    }


def _time(cluster: Cluster, end: float) -> dict[str, float]:
    """Replica-seconds from 0 to the last finish, by what the replica did; they add up to that span."""
    times = [r.accounts.times for r in cluster.replicas]
    names = ("compute_s", "interference_s", "layer_wait_s", "kv_move_s", "load_wait_s", "store_wait_s")
    spent = {name: sum(getattr(t, name) for t in times) for name in names}
    return {**spent, "idle_s": max(0.0, end * len(times) - sum(spent.values()))}


def _slo(
    cluster: Cluster, summary: dict[str, Any], columns: dict[str, np.ndarray], finished: np.ndarray, duration: float
) -> dict[str, Any]:
    """Every target against its percentile, and the share of requests that meet each bound themselves.

    A request that was rejected meets nothing; one with a single output token has no TPOT to miss.
    """
    targets = {}
    meets = finished.copy()
    for key, seconds in cluster.scenario.spec.slo.items():
        value = pick(summary, key)
        metric, _, statistic = key.rpartition("_")
        met = bool(finished.any()) and (value is None or value <= seconds * 1e3)
        targets[key] = {"target_ms": seconds * 1e3, "value_ms": value}
        share = 0.0
        if metric != "itl":
            ok = finished & ~(columns[f"{metric}_s"] > seconds)
            share = targets[key]["attainment"] = float(ok.mean())
            meets &= ok
        if not finished.all():  # a rejected request is slower than any bound
            met = met and statistic.startswith("p") and share >= float(statistic[1:]) / 100
        targets[key]["met"] = met
    return {
        "targets": targets,
        "met": all(t["met"] for t in targets.values()) if targets else None,
        "attainment": float(meets.mean()) if targets else None,
        "goodput_per_s": _rate(int(meets.sum()), duration),
    }


def _model(model: Any) -> dict[str, Any]:
    return {
        "name": model.name,
        "layers": model.layers,
        "weight_bytes": model.weight_bytes,
        "kv_bytes_per_token": model.kv_bytes_per_token,
        "max_context": model.max_context,
    }
