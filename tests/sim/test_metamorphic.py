"""Change one thing, and the numbers that depend on it move the right way (or, where they must, not at all)."""

import os
from pathlib import Path

import pytest

from sim.run import simulate

CHAT = {
    "requests": 300,
    "rate": 6,
    "turns": 3,
    "think_time": "20 s",
    "system_prompts": 5,
    "first_tokens": {"mean": 3000, "sigma": 1},
    "output_tokens": {"mean": 150, "sigma": 0.8},
}


@pytest.fixture(scope="module")
def chat(run):
    """Runs the generated chat load; HBM too small to keep every session. What was run once is not run again."""
    known = {}

    def go(**keywords):
        keywords = {"trace": {"generate": CHAT}, "blocks": 6000, "dram": "64 GiB", **keywords}
        key = repr(keywords)
        if key not in known:
            known[key] = run(**keywords)
        return known[key]

    return go


def mean(result, metric):
    return result.summary[f"{metric}_ms"]["mean"]


def conversation(limit):
    folder = os.environ.get("KVSIM_TRACES")
    if not folder or not (Path(folder) / "mooncake" / "conversation_trace.jsonl.gz").is_file():
        pytest.skip("KVSIM_TRACES has no mooncake/conversation_trace.jsonl.gz")
    return {"name": "mooncake-conversation", "limit": limit, "spread_arrivals": "3 s"}


def test_without_offload_dram_is_as_good_as_none(chat):
    without, unused = chat(dram=None), chat(offload="none")
    for metric in ("ttft", "tpot", "itl", "e2e", "queue"):
        assert without.summary[f"{metric}_ms"] == unused.summary[f"{metric}_ms"]


@pytest.mark.parametrize("trace", ["quickstart", "conversation"])
def test_more_dram_raises_the_hit_ratio(run, trace):
    section = {"name": "quickstart", "limit": 500} if trace == "quickstart" else conversation(500)
    sizes = (16, 64, 128, 256) if trace == "quickstart" else (64, 128, 256, 512)
    hardware = {"profile": "h100-sxm", "replicas": 2}
    results = [run(trace=section, dram=f"{gib} GiB", shared="node", hardware=hardware) for gib in sizes]
    ratios = [r.summary["prefix"]["hit_ratio"] for r in results]
    assert ratios == sorted(set(ratios))
    assert ratios[-1] > ratios[0] + 0.01


def test_slower_pcie_raises_ttft(chat):
    rates = ["200 GB/s", "50 GB/s", "12.5 GB/s", "3.125 GB/s"]
    ttft = [mean(chat(links={"pcie_h2d": {"bandwidth": rate}}), "ttft") for rate in rates]
    assert ttft == sorted(ttft)
    assert ttft[-1] > 1.2 * ttft[0]


def test_pcie_without_cost_means_no_load_wait(chat):
    links = {name: {"bandwidth": "1000 PB/s", "latency": "0 s"} for name in ("pcie_h2d", "pcie_d2h")}
    links["pcie_joint"] = {"bandwidth": "2000 PB/s"}
    free, real = chat(links=links), chat()
    assert free.summary["prefix"]["hit_tokens"]["dram"] > 0
    assert free.summary["load_ms"]["max"] < 1e-3
    assert free.summary["time"]["load_wait_s"] < 1e-3
    assert free.summary["links"]["pcie_h2d"]["utilization"] < 1e-6
    assert real.summary["load_ms"]["max"] > 1


def test_latency_of_a_link_is_charged_per_copy(chat, hand):
    plain, slow = chat(), chat(links={"pcie_h2d": {"latency": "100 us"}})
    loads = slow.frames["transfers"].query("link == 'pcie_h2d'")
    assert mean(slow, "load") > 2 * mean(plain, "load")
    beta = hand.value("links.pcie_h2d.loop.beta")
    seconds = loads.copies * 100e-6 + loads.bytes / beta
    assert ((loads.end_s - loads.start_s - seconds).abs() < 1e-9).all()


def test_more_replicas_lower_ttft_under_load(run):
    load = {"generate": {**CHAT, "rate": 30}}
    results = [run(trace=load, hardware={"profile": "h100-sxm", "replicas": n}) for n in (1, 2, 4, 8)]
    ttft = [mean(r, "ttft") for r in results]
    assert ttft == sorted(ttft, reverse=True)
    assert ttft[0] > 2 * ttft[-1]
    for result, n in zip(results, (1, 2, 4, 8), strict=True):  # round robin
        assert list(result.frames["requests"].replica) == [i % n for i in range(300)]


def test_host_time_is_added_to_every_step(run, hand, prompt):
    rows = [(0, 3000, 50, prompt(0, 3000))]
    plain, slow = (run(rows, engine=engine) for engine in ({}, {"host_time": "3 ms"}))
    before, after = (r.frames["requests"].iloc[0] for r in (plain, slow))
    assert after.tpot_s - before.tpot_s == pytest.approx(3e-3, rel=1e-9)
    assert after.ttft_s - before.ttft_s == pytest.approx(3e-3, rel=1e-9)


def test_write_back_stores_fewer_bytes_than_write_through(chat):
    through, back, none = (
        chat(offload=o).summary["tiers"]["dram"]["stored_bytes"] for o in ("write_through", "write_back", "none")
    )
    assert through > back > none == 0


def test_faster_arrivals_queue_longer(chat):
    slow, fast = (chat(trace={"generate": CHAT, "rate_scale": float(s)}) for s in (1, 4))
    assert mean(fast, "queue") > 2 * mean(slow, "queue")
    assert fast.summary["duration_s"] < slow.summary["duration_s"]


def test_cached_prefixes_lower_ttft(chat):
    with_dram, without = chat(), chat(dram=None)
    assert with_dram.summary["prefix"]["hit_ratio"] > without.summary["prefix"]["hit_ratio"]
    assert mean(with_dram, "ttft") < mean(without, "ttft")


def test_smaller_batches_trade_queue_for_tpot(chat):
    small, large = (chat(engine={"max_num_seqs": n}) for n in (2, 64))
    assert mean(small, "queue") > mean(large, "queue")
    assert mean(small, "tpot") < mean(large, "tpot")
    assert small.frames["steps"].running.max() <= 2 < large.frames["steps"].running.max()


def test_smaller_token_budget_lowers_the_longest_gap(chat):
    small, large = (chat(blocks=12000, engine={"max_num_batched_tokens": n}) for n in (512, 8192))  # no preemption
    assert small.summary["itl_ms"]["max"] < large.summary["itl_ms"]["max"]
    assert small.frames["steps"].prefill_tokens.max() <= 512 < large.frames["steps"].prefill_tokens.max()


def test_a_slower_gpu_is_slower(chat):
    fast, slow = (chat(hardware={"profile": p}) for p in ("h100-sxm", "a100-80"))
    for metric in ("ttft", "tpot", "e2e"):
        assert mean(slow, metric) > 1.2 * mean(fast, metric)


def test_one_dram_for_all_finds_more_than_one_each(chat):
    hardware = {"profile": "h100-sxm", "replicas": 4, "gpus_per_node": 2}
    ratios = [
        chat(hardware=hardware, shared=s, dram="1 TiB").summary["prefix"]["hit_ratio"]
        for s in ("private", "node", "cluster")
    ]
    assert ratios == sorted(set(ratios))


def test_limit_takes_the_first_requests(chat):
    whole, part = chat(), chat(trace={"generate": CHAT, "limit": 100})
    assert len(part.frames["requests"]) == 100
    columns = ["arrival_s", "input_tokens", "output_tokens"]
    assert part.frames["requests"][columns].equals(whole.frames["requests"][columns][:100])


def test_seed_changes_generated_traffic_and_nothing_else_does(chat):
    arrivals = {}
    for name, keywords in {"a": {"seed": 0}, "b": {"seed": 1}, "c": {"seed": 0, "dram": None}}.items():
        arrivals[name] = chat(**keywords).frames["requests"].arrival_s
    assert arrivals["a"].equals(arrivals["c"])
    assert not arrivals["a"].equals(arrivals["b"])


def test_slo_is_judged_and_changes_nothing_else(scenario):
    base = scenario(trace={"generate": CHAT}, slo={"ttft_p99": "1 s", "tpot_mean": "1 us", "e2e_p50": "1 h"})
    summary = simulate(base).summary
    slo = summary["slo"]
    assert {k: t["met"] for k, t in slo["targets"].items()} == {
        "ttft_p99": summary["ttft_ms"]["p99"] <= 1000,
        "tpot_mean": False,
        "e2e_p50": True,
    }
    assert slo["met"] is False
    assert slo["targets"]["ttft_p99"]["value_ms"] == summary["ttft_ms"]["p99"]
    plain = simulate(scenario(trace={"generate": CHAT})).summary
    assert plain["slo"]["met"] is None
    assert plain["ttft_ms"] == summary["ttft_ms"]
    assert plain["slo"]["goodput_per_s"] == plain["throughput"]["requests_per_s"]


def test_goodput_counts_requests_that_meet_every_bound(scenario):
    result = simulate(scenario(trace={"generate": CHAT}, slo={"ttft_p50": "100 ms", "tpot_p50": "9 ms"}))
    requests, slo = result.frames["requests"], result.summary["slo"]
    good = (requests.ttft_s <= 0.1) & ~(requests.tpot_s > 0.009)
    assert 0 < good.sum() < len(good)
    assert slo["attainment"] == pytest.approx(good.mean())
    assert slo["goodput_per_s"] == pytest.approx(good.sum() / result.summary["duration_s"])
