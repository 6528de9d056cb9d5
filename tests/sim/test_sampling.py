"""Sampling against public measurements of vLLM's sampler."""

import csv
import os
from pathlib import Path

import pytest

from hw_profiles.loader import load_profile
from sim.cost.sampling import sampling_s

TRACES = os.environ.get("KVSIM_TRACES")
SHARED = Path(TRACES).parent if TRACES else Path(__file__).parents[3] / "shared" / "data"
DATA = SHARED / "kernels" / "llmservingsim"
# achieved HBM read rate, bytes/s: HBM-bound decode attention of the same machines in public tables
MACHINES = {"RTXPRO6000": 1.52e12, "RTX4090": 0.95e12}
RUNS = [
    ("RTX4090", "meta-llama/Llama-3.1-8B", 128_256),
    ("RTXPRO6000", "meta-llama/Llama-3.1-8B", 128_256),
    ("RTXPRO6000", "Qwen/Qwen3-30B-A3B-Instruct-2507", 151_936),
    ("RTXPRO6000", "Qwen/Qwen3-32B", 151_936),
]


@pytest.mark.parametrize(("machine", "model", "vocab"), RUNS)
def test_large_batches_of_public_profiles(machine, model, vocab):
    path = DATA / machine / model / "bf16" / "tp1" / "per_sequence.csv"
    if not path.exists():
        pytest.skip(f"no LLMServingSim profiles at {DATA}")
    profile = load_profile("h100-sxm").override("tiers.hbm.read", MACHINES[machine])
    rows = [row for row in csv.DictReader(path.open()) if row["layer"] == "sampler" and int(row["sequences"]) >= 64]
    assert len(rows) > 5
    ratios = [sampling_s(int(r["sequences"]), vocab, profile) / (1e-6 * float(r["time_us"])) for r in rows]
    assert 0.8 < sum(ratios) / len(ratios) < 1.3
    assert 0.7 < min(ratios) < max(ratios) < 1.5
