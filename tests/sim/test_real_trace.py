"""The Mooncake conversation trace (needs KVSIM_TRACES): with unlimited memory and time, its published hit ratio."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from traces.mooncake import read_mooncake, write_mooncake


@pytest.fixture(scope="module")
def conversation():
    folder = os.environ.get("KVSIM_TRACES")
    path = Path(folder or "") / "mooncake" / "conversation_trace.jsonl.gz"
    if not folder or not path.is_file():
        pytest.skip("KVSIM_TRACES has no mooncake/conversation_trace.jsonl.gz")
    return read_mooncake(path)


def test_ideal_hit_ratio_of_the_conversation_trace(run, conversation, tmp_path):
    """One replica, a request every 600 s, DRAM without limit: all that an infinite prefix cache would find."""
    patient = replace(conversation, arrival_s=600.0 * np.arange(len(conversation)))
    path = write_mooncake(patient, tmp_path / "patient.jsonl")
    result = run(trace={"path": str(path)}, dram="100 TiB")
    summary = result.summary
    assert summary["requests"]["finished"] == 12_031 - summary["requests"]["rejected"]
    ratio = 100 * summary["prefix"]["hit_ratio"]
    assert ratio == pytest.approx(37.3, abs=0.2)  # SOURCE: tokens of ids seen before / tokens of the trace
    assert ratio == pytest.approx(100 * ideal(conversation), abs=0.05)
    assert summary["tiers"]["dram"]["evicted_blocks"] == summary["preemptions"] == 0


def ideal(trace):
    """Share of the input tokens that lie in whole 16-token blocks of prefixes seen before, the last token left out."""
    seen, hit = set(), 0
    for request in trace:
        limit = (request.input_tokens - 1) // 16 * 16
        for i, key in enumerate(request.hash_ids):
            if key not in seen:
                break
            hit += min(limit, 512 * (i + 1)) - min(limit, 512 * i)
        seen.update(request.hash_ids)
    return hit / int(trace.input_tokens.sum())


def test_the_first_thousand_requests_on_the_machine_of_the_example(run, conversation, tmp_path):
    """Eight replicas with shared DRAM, at real speed: nothing lost, and no better than the ideal."""
    first = conversation.select(np.arange(1000))
    path = write_mooncake(first, tmp_path / "first.jsonl")
    summary = run(
        trace={"path": str(path)}, dram="2 TiB", shared="node", hardware={"profile": "h100-sxm", "replicas": 8}
    ).summary
    assert summary["requests"]["finished"] == 1000
    assert 0.5 * ideal(first) < summary["prefix"]["hit_ratio"] <= ideal(first)
