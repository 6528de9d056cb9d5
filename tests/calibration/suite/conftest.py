"""Raw samples of an H100 that never was: every point of the plan takes what known formulas say, with noise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from calibration.suite.facts import costs_of, facts_of
from calibration.suite.plan import make_plan
from calibration.suite.plan_attention import decode_bytes
from calibration.suite.samples import SCHEMA
from hw_profiles.cost_models import CopyModel, DecodeModel, GemmModel, LinkModel
from hw_profiles.l2 import L2Model
from hw_profiles.loader import load_profile
from hw_profiles.prefill_cost import PrefillModel

KIB, MIB = 2**10, 2**20
TRUTH = SimpleNamespace(
    gemm=GemmModel(4.2e-6, 2.95e12, 6.6e14, 3.4, tile_rows=64),
    gemm_fp8=GemmModel(6.0e-6, 2.8e12, 1.1e15, 2.5, tile_rows=64),
    decode=DecodeModel(9.5e-6, 9.0e-6, 7e-8, 2.98e12),
    slower={"bf16": 1.0, "int8": 1.1, "fp8": 1.15, "int4": 1.5, "int2": 2.0},
    mla=DecodeModel(1.4e-5, 1.3e-5, 2e-7, 1.9e12),
    prefill=PrefillModel(1.2e-5, 9e-9, 3.6e14, per_context=2e-8),
    line={"read": LinkModel(2.6e-6, 3.01e12), "write": LinkModel(2.4e-6, 3.1e12), "copy": LinkModel(2.9e-6, 2.9e12)},
    copy={"h2d": LinkModel(3.4e-6, 5.25e10), "d2h": LinkModel(3.6e-6, 5.02e10)},
    pageable=9.6e9,
    blocks={
        "loop": CopyModel(3.3e-6, 5.2e10),
        "batch": CopyModel(1.5e-7, 5.4e10, 24 * KIB, 5e-7, 8e9),
        "kernel": CopyModel(2e-7, 4.8e10),
    },
    submit={"loop": 4e-6, "batch": 5.2e-7, "kernel": 1e-8},
    l2=L2Model(9.2e12, 3.01e12, 38e6, 62e6),
    latency={"l2": 1.5e-7, "hbm": 3.4e-7, "host": 9e-7},
    joint={"loop": 8.3e10, "kernel": 6.8e10},
    kappa={"h2d": 1.6, "d2h": 1.2, "h2d_kernel": 2.4, "d2h_kernel": 2.1},
    launch={"stream": 4.1e-6, "single": 2.3e-6, "graph_1000": 1.3e-6, "graph_100": 1.4e-6, "graph_1": 4e-6},
)
KERNEL_S = {"stream_read": 1.8e-4, "stream_copy": 3.6e-4, "decode": 3.7e-4, "gemm": 9e-4}


def truth_of(bench, key):
    """(seconds, nbytes, flops, extra) of a point, as the bench would report it."""
    return TABLE[bench](key)


def _gemm(key):
    m, n, k = (key[name] for name in "mnk")
    width = 1 if key["dtype"] == "fp8" else 2
    nbytes, flops = width * (m * k + n * k) + 2 * m * n, 2.0 * m * n * k
    model = TRUTH.gemm_fp8 if key["dtype"] == "fp8" else TRUTH.gemm
    return model.seconds(nbytes, flops, (m, n, k)) * (1.2 if key["impl"] == "triton" else 1.0), nbytes, flops, {}


def _decode(key):
    nbytes = decode_bytes(key["batch"], key["seq"], key["kv_heads"], key["format"])
    model = dataclasses.replace(TRUTH.decode, bandwidth=TRUTH.decode.bandwidth / TRUTH.slower[key["format"]])
    return model.seconds(key["batch"] * key["kv_heads"] / 8, nbytes), nbytes, 0.0, {}


def _skew(key):
    cv = {"even": 0.0, "uniform": 0.5, "bimodal": 0.8, "one_long": 1.5, "geometric": 1.2}[key["skew"]]
    nbytes = decode_bytes(key["batch"], key["seq"], 8)
    return TRUTH.decode.seconds(key["batch"], nbytes) * (1 + 0.08 * cv), nbytes, 0.0, {"cv": cv, "longest": 1.0}


def _mla(key):
    nbytes = 1152.0 * key["batch"] * key["seq"]
    return TRUTH.mla.seconds(key["batch"], nbytes), nbytes, 0.0, {}


def _prefill(key):
    flops = 4.0 * 32 * 128 * key["tokens"] * (key["prefix"] + key["tokens"] / 2)
    seconds = TRUTH.prefill.seconds(key["tokens"], flops)
    return seconds * (0.6 if key["impl"] == "sdpa" else 1.0), 0.0, flops, {}


def _stream(key):
    nbytes = key["bytes"] * (2 if key["op"] == "copy" else 1)
    return TRUTH.line[key["op"]].seconds(nbytes, 1), nbytes, 0.0, {}


def _l2(key):
    nbytes = 50.0 * key["bytes"]
    return TRUTH.l2.seconds(nbytes, key["bytes"]), nbytes, 0.0, {}


def _prefetch(key):
    cold, hot = TRUTH.line["read"].seconds(key["bytes"], 1), 1e-6 + key["bytes"] / 9e12
    share = {"cold": 0.0, "hot": 1.0, "lines": 0.7, "pages": 0.9}[key["method"]]
    share *= max(0.0, 1 - key["other"] / (48 * MIB))
    return cold + share * (hot - cold), key["bytes"], 0.0, {}


def _copy(key):
    if key["memory"] == "pageable":
        return 2e-5 + key["bytes"] / TRUTH.pageable, key["bytes"], 0.0, {}
    return TRUTH.copy[key["direction"]].seconds(key["bytes"], 1), key["bytes"], 0.0, {}


def _blocks(key):
    total, count = key["bytes"] * key["blocks"], key["blocks"]
    seconds = TRUTH.blocks[key["method"]].seconds(total, count)
    queued = key["method"] != "loop" or count <= 512
    return (seconds if queued else max(seconds, count * 4e-6)), total, 0.0, {"queued": float(queued)}


def _both_ways(key):
    each = 256 * MIB
    joint = TRUTH.joint["kernel" if key["h2d"] == key["d2h"] == "kernel" else "loop"]
    alone = {d: TRUTH.copy[d].beta for d in ("h2d", "d2h")}
    share = alone["h2d"] / sum(alone.values())
    rates = {"h2d": joint * share, "d2h": joint * (1 - share)}
    first = min(rates, key=lambda d: each / rates[d])
    last = "d2h" if first == "h2d" else "h2d"
    done = each / rates[first]
    times = {first: done, last: done + (each - rates[last] * done) / alone[last]}
    return max(times.values()), 2.0 * each, 0.0, {f"{d}_s": times[d] for d in times}


def _beside(key):
    seconds, rate = KERNEL_S[key["kernel"]], {"d2d": 1.0e12}.get(key["traffic"], 5.0e10)
    traffic = key["traffic"]
    extra = {"launches": 100.0, "covered": 1.0}
    ways = {"none": (), "both": ("h2d", "d2h")}.get(traffic, (traffic,))
    for number, way in enumerate(ways):
        extra |= {f"traffic_{number}_bytes": 1e9, f"traffic_{number}_s": 1e9 / rate}
        if key["kernel"] != "gemm":
            seconds *= 1 + TRUTH.kappa.get(way, 1.0) * rate / TRUTH.line["read"].beta
    return seconds, 0.0, 0.0, extra


def _line(key, nbytes):
    return 3e-6 + nbytes / 2.2e12, nbytes, 0.0, {}


def _launch(key):
    return TRUTH.launch.get(key["what"], 1e-5), 0.0, 0.0, {}


TABLE = {
    "gemm": _gemm,
    "decode": _decode,
    "decode_skew": _skew,
    "mla": _mla,
    "prefill": _prefill,
    "stream": _stream,
    "l2_read": _l2,
    "l2_prefetch": _prefetch,
    "gemm_beside_prefetch": lambda key: (4e-4 * (1.0 if key["method"] == "hot" else 1.03), 0.0, 0.0, {}),
    "chase": lambda key: (1e4 * TRUTH.latency[key["where"]], 1e4, 0.0, {}),
    "launch": _launch,
    "copy": _copy,
    "blocks": _blocks,
    "both_ways": _both_ways,
    "behind": lambda key: (4e-6 + key["chunk"] / 5.2e10, 4096.0, 0.0, {"all_s": 1.3e-3}),
    "programs": lambda key: (64 * MIB / min(4.8e10, key["programs"] * 6e9), 64.0 * MIB, 0.0, {}),
    "from_host": lambda key: (key["batch"] * key["seq"] * 4096 / 4e10, key["batch"] * key["seq"] * 4096.0, 0.0, {}),
    "beside": _beside,
    "elementwise": lambda key: _line(key, key["tokens"] * 16384.0),
    "layer": lambda key: (3e-4, 0.0, 0.0, {}),
    "page_copy": lambda key: _line(key, 2.0 * key["bytes"] * key["pages"]),
    "quantise": lambda key: _line(key, 3.0 * key["numbers"]),
    "digest": lambda key: _line(key, 4096.0 * key["pages"] * key["batch"]),
    "host_memcpy": lambda key: (key["bytes"] / (9e9 * min(key["threads"], 4)), float(key["bytes"]), 0.0, {}),
    "pin": lambda key: (key["bytes"] / 2.4e9, float(key["bytes"]), 0.0, {}),
}


def write_samples(
    path: Path, *, noise=0.04, disturbed=0.08, drift=0.0, wrong=lambda point: 1.0, passes=2, seed=0, tick=0.0
):
    """Samples of every point: lognormal noise, a share of repetitions that something disturbed, a clock that ticks."""
    profile = load_profile("h100-sxm")
    facts = dataclasses.replace(facts_of(profile), name="H100 of the tests", peak=3.35e12, uuid="GPU-0")
    plan = make_plan(facts, costs_of(profile))
    rng = np.random.default_rng(seed)

    def times(seconds, count):
        repeated = seconds * rng.lognormal(0, noise, count)
        repeated = np.where(rng.random(count) < disturbed, repeated * rng.uniform(1.3, 4, count), repeated)
        return tick * np.floor(repeated / tick + rng.random(count)) if tick else repeated

    def micro(values):
        return [max(round(1e6 * float(value), 3), 0.001) for value in values]

    device = dataclasses.asdict(facts)
    env = {"schema": SCHEMA, "time": "2026-11-21T10:00:00Z", "device": device}
    env |= {"software": {"torch": "0"}, "host": {"machine": "x"}, "settings": {}, "plan": {}}
    records = [{"type": "env", **env}]
    for turn in range(passes):
        for what in ("gemm", "copy"):
            slower = 1 + drift * turn / max(1, passes - 1)
            records.append({"type": "anchor", "what": what, "tag": str(turn), "us": micro(slower * np.full(8, 1e-3))})
        for point in plan.order(turn):
            seconds, nbytes, flops, extra = truth_of(point.bench, dict(point.key))
            seconds = float(seconds) * wrong(point)
            host = TRUTH.submit.get(point.key.get("method", ""), 0.0) * point.key.get("blocks", 1)
            record = {
                "type": "sample",
                "pass": turn,
                "name": point.name,
                "bench": point.bench,
                "key": dict(point.key),
                "heldout": point.heldout,
                "us": micro(times(seconds, point.samples)),
                "flags": [],
                "host_us": micro(np.full(point.samples, max(host, 1e-6))),
                "nbytes": float(nbytes),
                "flops": flops,
            }
            if extra:
                record["extra"] = {name: [value] * point.samples for name, value in extra.items()}
            records.append(record)
    records.append({"type": "end", "seconds": 90})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def truth():
    """The formulas behind the samples."""
    return TRUTH


@pytest.fixture(scope="session")
def samples_file(tmp_path_factory):
    """Noisy samples of the whole plan."""
    return write_samples(tmp_path_factory.mktemp("samples") / "samples.jsonl")


@pytest.fixture
def make_samples():
    """`write_samples`."""
    return write_samples
