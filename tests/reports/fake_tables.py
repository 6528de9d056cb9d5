"""Fabricates the tables of a run directory with plausible numbers.

A toy queue stands in for the simulator, so that these tests can ask for shapes no scenario gives quickly:
arrivals with a wave, one FIFO prefill server a replica, a fixed time per output token. Tables agree with each
other and with fake_summary.py.
"""

from typing import Any

import numpy as np

KV_BYTES = 131072  # per token, Llama-3.1-8B in 16 bit
LINK_RATE = {"pcie_h2d": 52.3e9, "pcie_d2h": 50.4e9}
PREFILL_TOKENS_PER_S = 15000.0
NONE = ("recompute", "preempted", "copies", "layer_wait", "kv_moves", "store_wait")
CAPACITY = {"hbm": 8 * 52 * 2**30, "dram": 2 * 2**40}


def make_requests(n: int, replicas: int, seed: int, rejected: int, span: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    phase = np.sort(rng.random(n))
    arrival = 27.5 + span * (phase + 0.035 * np.sin(9 * np.pi * phase))
    arrival.sort()
    inputs = np.clip(rng.lognormal(9.0, 0.9, n), 200, 120000).astype(np.int64)
    outputs = np.clip(rng.lognormal(5.5, 0.8, n), 1, 2000).astype(np.int64)
    warm = np.minimum(1.0, np.arange(n) / (0.15 * n + 1))
    hbm = (inputs * warm * rng.beta(1.2, 5, n)).astype(np.int64) // 16 * 16
    dram = ((inputs - hbm) * warm * rng.beta(1.2, 2.5, n)).astype(np.int64) // 16 * 16
    computed = inputs - hbm - dram
    replica = np.arange(n) % replicas
    load = dram * KV_BYTES / LINK_RATE["pcie_h2d"] + np.where(dram > 0, 2e-4, 0.0)
    service = 0.012 + computed / PREFILL_TOKENS_PER_S
    admit, loaded, first = np.empty(n), np.empty(n), np.empty(n)
    free = np.zeros(replicas)
    for i in range(n):
        r = replica[i]
        admit[i] = max(arrival[i], free[r])
        loaded[i] = admit[i] + load[i]
        first[i] = loaded[i] + service[i]
        free[r] = first[i]
    tpot = rng.gamma(30, 0.018 / 30, n)
    finish = first + tpot * (outputs - 1)
    out = {
        "request_id": np.arange(n),
        "replica": replica.astype(np.int16),
        "arrival_s": arrival,
        "admit_s": admit,
        "load_done_s": loaded,
        "first_chunk_s": loaded,
        "first_token_s": first,
        "finish_s": finish,
        "input_tokens": inputs,
        "output_tokens": outputs,
        "hit_hbm_tokens": hbm,
        "hit_dram_tokens": dram,
        "computed_tokens": computed,
        "recomputed_tokens": np.zeros(n, np.int64),
        "preemptions": np.zeros(n, np.int32),
        "ttft_s": first - arrival,
        "tpot_s": np.where(outputs > 1, tpot, np.nan),
        "e2e_s": finish - arrival,
        "queue_s": admit - arrival,
        "load_s": loaded - admit,
        "prefill_s": first - loaded,
        "prefetch_wait_s": np.zeros(n),
        "load_dram_s": loaded - admit,
        "prefill_compute_s": first - loaded,
        "decode_compute_s": finish - first,
        "decode_beside_s": np.zeros(n),
        **{f"{p}_{part}_s": np.zeros(n) for p in ("prefill", "decode") for part in NONE},
    }
    status = np.full(n, "finished", dtype=object)
    lost = rng.permutation(n)[:rejected]
    status[lost] = "rejected"
    for name in [c for c in out if out[c].dtype == np.float64 and c != "arrival_s"]:
        out[name][lost] = np.nan
    return {"status": status, **out}


def make_transfers(requests: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    parts = []
    for link, reason, tokens, when in (
        ("pcie_h2d", "load", "hit_dram_tokens", "admit_s"),
        ("pcie_d2h", "store", "computed_tokens", "first_token_s"),
    ):
        size = requests[tokens] * KV_BYTES
        rows = (size > 0) & (requests["status"] == "finished")
        queued = requests[when][rows]
        lasts = size[rows] / LINK_RATE[link]
        replica = requests["replica"][rows]
        order = np.argsort(queued, kind="stable")
        start = np.empty(len(queued))
        free = np.zeros(int(replica.max(initial=0)) + 1)
        for i in order:
            start[i] = max(queued[i], free[replica[i]])
            free[replica[i]] = start[i] + lasts[i]
        n = len(queued)
        src, dst = ("dram", "hbm") if reason == "load" else ("hbm", "dram")
        parts.append(
            {
                "link": [link] * n,
                "replica": replica,
                "src": [src] * n,
                "dst": [dst] * n,
                "bytes": size[rows],
                "copies": (size[rows] // (16 * KV_BYTES) + 1).astype(np.int32),
                "queued_s": queued,
                "start_s": start,
                "end_s": start + lasts,
                "reason": [reason] * n,
            }
        )
    kinds = {k: str if isinstance(v, list) else v.dtype for k, v in parts[0].items()}
    return {k: np.concatenate([np.asarray(p[k], dtype=kind) for p in parts]) for k, kind in kinds.items()}


def make_steps(requests: dict[str, np.ndarray], replicas: int, per_replica: int) -> dict[str, np.ndarray]:
    end = float(np.nanmax(requests["finish_s"], initial=requests["arrival_s"].max()))
    edges = np.linspace(float(requests["arrival_s"].min()), end, per_replica + 1)
    rng = np.random.default_rng(7)
    n = per_replica * replicas
    start = np.tile(edges[:-1], replicas)
    busy = np.tile(np.diff(edges), replicas) * np.clip(rng.normal(0.8, 0.1, n), 0.1, 1.0)
    one = np.ones(n, np.int32)
    return {
        "replica": np.repeat(np.arange(replicas, dtype=np.int16), per_replica),
        "first_step": np.tile(np.arange(per_replica) * 20, replicas),
        "count": 20 * one,
        "start_s": start,
        "end_s": start + busy,
        "decode_seqs": 30 * one,
        "prefill_seqs": one,
        "prefill_tokens": 800 * one,
        "context_tokens": np.full(n, 400000),
        "running": 31 * one,
        "waiting": 2 * one,
        "linear_s": 0.55 * busy,
        "attention_s": 0.3 * busy,
        "exchange_s": np.zeros(n),
        "pipeline_s": np.zeros(n),
        "launch_s": 0.1 * busy,
        "stall_s": 0.05 * busy,
        "interference_s": 0.03 * busy,
        "layer_wait_s": np.zeros(n),
        "works_s": np.zeros(n),
        "moves_s": np.zeros(n),
    }


def make_samples(requests: dict[str, np.ndarray], replicas: int) -> dict[str, list[Any]]:
    ok = requests["status"] == "finished"
    end = float(np.nanmax(requests["finish_s"], initial=requests["arrival_s"].max()))
    grid = np.linspace(float(requests["arrival_s"].min()), end, 400)
    rows: list[tuple[float, str, str, str, float]] = []

    def inside(a: str, b: str, mask: np.ndarray) -> np.ndarray:
        left, right = np.sort(requests[a][mask]), np.sort(requests[b][mask])
        return np.searchsorted(left, grid, "right") - np.searchsorted(right, grid, "right")

    for r in range(replicas):
        mask = ok & (requests["replica"] == r)
        for metric, a, b in (
            ("running", "load_done_s", "finish_s"),
            ("waiting", "arrival_s", "admit_s"),
            ("loading", "admit_s", "load_done_s"),
        ):
            rows += [(t, "replica", str(r), metric, float(v)) for t, v in zip(grid, inside(a, b, mask), strict=True)]
        fill = np.minimum(0.97, np.linspace(0, 4, 400)) * CAPACITY["hbm"] / 8
        pinned = np.minimum(inside("admit_s", "finish_s", mask) * 9000.0 * KV_BYTES, fill)
        rows += [(t, "tier", f"hbm/{r}", "used_bytes", float(v)) for t, v in zip(grid, fill, strict=True)]
        rows += [(t, "tier", f"hbm/{r}", "pinned_bytes", float(v)) for t, v in zip(grid, pinned, strict=True)]
    dram = CAPACITY["dram"] * (1 - np.exp(-np.linspace(0, 3.5, 400)))
    rows += [(t, "tier", "dram/node0", "used_bytes", float(v)) for t, v in zip(grid, dram, strict=True)]
    names = ("time_s", "kind", "object", "metric", "value")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
