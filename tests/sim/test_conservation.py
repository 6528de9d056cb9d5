"""Bytes that leave one side arrive at the other, tiers keep to their capacity, and no token is made up or lost."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from traces.generate import GenerateSpec, generate

CHECKED = settings(  # a failing example is shown as found: making it smaller would take minutes
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
GENERATED = {
    "requests": 120,
    "rate": 6,
    "turns": 3,
    "think_time": "4 s",
    "system_prompts": 3,
    "first_tokens": {"mean": 1500, "sigma": 1},
    "output_tokens": {"mean": 150, "sigma": 0.8},
    "max_input": 8000,
}


def check_books(result):
    """Sums of the tables against the summary, and against each other."""
    summary, transfers = result.summary, result.frames["transfers"]
    requests, samples = result.frames["requests"], result.frames["samples"]
    moved = {reason: int(transfers.bytes[transfers.reason == reason].sum()) for reason in ("load", "store")}
    token_bytes = summary["model"]["kv_bytes_per_token"]

    lower = {name: tier for name, tier in summary["tiers"].items() if name != "hbm"}
    assert sum(t["stored_bytes"] for t in lower.values()) == moved["store"]
    assert sum(t["loaded_bytes"] for t in lower.values()) == moved["load"]
    if lower:
        assert summary["links"]["pcie_d2h"]["bytes"] == moved["store"]
        assert summary["links"]["pcie_h2d"]["bytes"] == moved["load"]
    # what was stored is still there or was evicted; more of it cannot have gone unused than there was
    for tier in summary["tiers"].values():
        assert tier["peak_bytes"] <= tier["capacity_bytes"]
        assert tier["stored_bytes"] - tier["evicted_bytes"] - tier["replaced_bytes"] <= tier["capacity_bytes"]
    for tier in lower.values():
        assert tier["evicted_bytes"] <= tier["stored_bytes"]
        assert 0 <= tier["never_loaded_bytes"] <= tier["stored_bytes"]

    used = samples[(samples.kind == "tier") & (samples.metric == "used_bytes")]
    count = {name: tier["count"] for name, tier in summary["tiers"].items()}
    for label, rows in used.groupby("object", observed=True):
        name = label.partition("/")[0]
        assert rows.value.max() <= summary["tiers"][name]["capacity_bytes"] / count[name]
    pinned = samples[(samples.kind == "tier") & (samples.metric == "pinned_bytes")]
    assert (pinned.value.to_numpy() <= used.value.to_numpy()).all()

    done = requests[requests.status == "finished"]
    hits = done[[c for c in done.columns if c.startswith("hit_")]].sum(axis=1)
    once = done.preemptions == 0
    assert (hits + done.computed_tokens == done.input_tokens)[once].all()
    assert (hits + done.computed_tokens - done.recomputed_tokens == done.input_tokens).all()
    assert (done.recomputed_tokens[~once] >= 0).all()
    assert (hits <= (done.input_tokens - 1) // 16 * 16).all()
    # a preempted request may load its prefix again, which first admissions do not show
    first_loads = int(done[[c for c in done.columns if c == "hit_dram_tokens"]].to_numpy().sum()) * token_bytes
    if once.all():
        assert moved["load"] <= first_loads  # a prefix on its way is joined, not fetched twice
    assert summary["preemptions"] == int(requests.preemptions.sum())

    steps = result.frames["steps"]
    assert int(steps.prefill_tokens.sum()) == int(requests.computed_tokens.sum())
    parts = steps.linear_s + steps.attention_s + steps.launch_s + steps.interference_s
    assert np.allclose(parts, steps.end_s - steps.start_s, rtol=1e-9, atol=1e-12)  # host_time is 0
    busy = summary["time"]["compute_s"] + summary["time"]["interference_s"]
    assert busy == pytest.approx(float((steps.end_s - steps.start_s).sum()), rel=1e-9)
    assert summary["time"]["interference_s"] == pytest.approx(float(steps.interference_s.sum()), rel=1e-9)

    for link in ("pcie_h2d", "pcie_d2h"):
        for _, rows in transfers[transfers.link == link].groupby("replica"):
            assert (rows.start_s >= rows.queued_s).all()
            assert (rows.start_s.to_numpy()[1:] >= rows.end_s.to_numpy()[:-1]).all()  # one at a time, in order
            assert (rows.copies * 16 * token_bytes == rows.bytes).all()


@CHECKED
@given(
    offload=st.sampled_from(["none", "write_through", "write_back"]),
    blocks=st.sampled_from([520, 700, 1500]),
    dram=st.sampled_from([None, "600 MiB", "3 GiB", "64 GiB"]),
    shared=st.sampled_from(["private", "node", "cluster"]),
    replicas=st.integers(1, 3),
    seqs=st.sampled_from([2, 8, 64]),
    seed=st.integers(0, 5),
)
def test_books_balance(run, offload, blocks, dram, shared, replicas, seqs, seed):
    result = run(
        blocks=blocks,
        dram=dram,
        shared=shared,
        offload=offload,
        engine={"max_num_seqs": seqs, "max_num_batched_tokens": 2048},
        hardware={"profile": "h100-sxm", "replicas": replicas, "gpus_per_node": 2},
        trace={"generate": {**GENERATED, "requests": 60}},
        seed=seed,
    )
    check_books(result)


def test_books_balance_under_pressure(run):
    """A long run in which everything happens: hits, loads, stores, evictions, preemptions."""
    result = run(
        blocks=700, dram="4 GiB", engine={"max_num_seqs": 32}, trace={"generate": {**GENERATED, "requests": 400}}
    )
    summary = result.summary
    assert summary["preemptions"] > 0
    assert summary["prefix"]["recomputed_tokens"] > 0
    assert summary["prefix"]["hit_tokens"]["dram"] > 0
    assert summary["tiers"]["dram"]["evicted_blocks"] > 0
    check_books(result)


def test_hit_tokens_are_those_of_a_replay_of_the_cache(run):
    """With unlimited DRAM all that was said before is found: compared with the tokens seen behind each id."""
    result = run(dram="100 TiB", trace={"generate": {**GENERATED, "rate": 0.01, "think_time": "600 s"}})
    requests = result.frames["requests"]
    hits = requests.hit_hbm_tokens + requests.hit_dram_tokens
    trace = generate(GenerateSpec(**{**GENERATED, "rate": 0.01, "think_time": "600 s"}), 0)
    seen: dict[int, int] = {}
    for request, hit in zip(trace, hits, strict=True):
        names = request.carried_ids or request.hash_ids
        limit, found = (request.input_tokens - 1) // 16 * 16, 0
        for i, key in enumerate(names[: len(request.hash_ids)]):
            found += min(seen.get(key, 0), limit - found)
            if found < min(limit, (i + 1) * 512):
                break
        assert hit == found, request.index
        said = request.input_tokens + (request.output_tokens - 1 if request.carried else 0)
        for i, key in enumerate(names):
            seen[key] = max(seen.get(key, 0), min(512, said // 16 * 16 - i * 512))
    assert hits.sum() > 0.2 * requests.input_tokens.sum()


def test_shared_dram_serves_what_another_replica_computed(run, prompt):
    rows = [(0, 2000, 1, prompt(0, 2000)), (10, 2000, 1, prompt(0, 2000))]
    for shared, found in (("private", 0), ("node", 1984), ("cluster", 1984)):
        hardware = {"profile": "h100-sxm", "replicas": 2}
        requests = run(rows, dram="10 GiB", shared=shared, hardware=hardware).frames["requests"]
        assert requests.hit_dram_tokens[1] == found, shared


def test_a_node_is_gpus_per_node_replicas(run, prompt):
    rows = [(10 * i, 2000, 1, prompt(0, 2000)) for i in range(4)]
    hardware = {"profile": "h100-sxm", "replicas": 4, "gpus_per_node": 2}
    result = run(rows, dram="10 GiB", shared="node", hardware=hardware)
    assert list(result.frames["requests"].hit_dram_tokens) == [0, 1984, 0, 1984]
    assert result.summary["tiers"]["dram"]["count"] == 2
    assert result.summary["tiers"]["dram"]["capacity_bytes"] == 20 * 2**30


def test_a_store_that_finds_no_room_is_refused_and_counted(run, prompt, hand):
    """DRAM of 600 tokens: the second block of a prompt of 1,024 does not fit beside the first, still arriving."""
    result = run([(0, 1024, 1, prompt(0, 1024))], dram=f"{600 * hand.token_bytes} B")
    dram = result.summary["tiers"]["dram"]
    assert dram["stored_bytes"] == dram["refused_bytes"] == 512 * hand.token_bytes
    assert len(result.frames["transfers"]) == 1
