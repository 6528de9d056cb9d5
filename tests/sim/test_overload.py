"""KV that is full from the first minute on: hundreds of preemptions, every token accounted for, and tiers that help."""

import numpy as np
import pytest

from sim.metrics import METRICS

BLOCKS = 600
"""9,600 tokens of KV: some twelve requests of 400 + 400 tokens, of which more are admitted by their prompts."""


@pytest.fixture(scope="module")
def load():
    """500 requests, 8/s: several times what the replica can do with so little memory."""
    rng = np.random.Generator(np.random.Philox(11))
    arrivals = np.cumsum(rng.exponential(1 / 8, 500))
    outputs = rng.integers(200, 600, 500)
    return [(float(t), 400, int(n), [10 * i]) for i, (t, n) in enumerate(zip(arrivals, outputs, strict=True))]


@pytest.fixture(scope="module")
def overloaded(run, load):
    return run(load, blocks=BLOCKS)


def held(result):
    """(s, share of HBM in use) of each sample."""
    samples = result.frames["samples"]
    used = samples[(samples.object == "hbm/0") & samples.metric.str.contains("bytes")]
    by_time = used[used.metric == "used_bytes"].set_index("time_s").value
    return by_time / result.summary["tiers"]["hbm"]["capacity_bytes"]


def test_hundreds_are_preempted_and_all_finish(overloaded):
    summary, requests = overloaded.summary, overloaded.frames["requests"]
    assert (requests.status == "finished").all()
    assert summary["preemptions"] > 300
    share = held(overloaded)
    busy = share[(share.index > 15) & (share.index < requests.arrival_s.max())]
    assert len(busy) > 10
    assert busy.mean() > 0.95
    assert busy.min() > 0.85
    assert share.max() <= 1


def test_the_books_are_exact(overloaded):
    summary, frames = overloaded.summary, overloaded.frames
    requests, steps, lost = frames["requests"], frames["steps"], frames["preemptions"]
    hits = requests.hit_hbm_tokens
    assert (hits + requests.computed_tokens - requests.recomputed_tokens == requests.input_tokens).all()
    assert summary["preemptions"] == len(lost) == requests.preemptions.sum()
    assert summary["prefix"]["recomputed_tokens"] == requests.recomputed_tokens.sum() > 0
    assert (requests.recomputed_tokens[requests.preemptions == 0] == 0).all()
    # every token of every answer comes once: from a decode step, from the end of a prompt, or of one computed again
    decoded = (steps.decode_seqs * steps["count"]).sum()
    assert lost.restart_s.notna().all()
    assert decoded + len(requests) + len(lost) == requests.output_tokens.sum()
    assert steps.prefill_tokens.sum() == requests.computed_tokens.sum()
    for span in ("ttft", "e2e"):
        group = summary["attribution"][f"{span}_ms"]["all"]
        assert sum(group["parts"].values()) == pytest.approx(group["mean"], rel=1e-9)


def test_counts_and_queues_are_in_the_summary(overloaded):
    summary = overloaded.summary
    shown = {metric["key"]: metric["value"] for metric in summary["metrics"]}
    assert {"preemptions", "recomputed_tokens"} <= {metric.key for metric in METRICS}
    assert shown["preemptions"] == summary["preemptions"]
    assert shown["recomputed_tokens"] == summary["prefix"]["recomputed_tokens"]
    queue = summary["queue"]
    assert queue["waiting"]["max"] > 100 > queue["running"]["max"]
    requests = overloaded.frames["requests"]
    total = queue["waiting"]["mean"] + queue["running"]["mean"]
    span = requests.finish_s.max() - requests.arrival_s.min()
    assert total == pytest.approx(requests.e2e_s.sum() / span, rel=1e-9)  # Little's law


def test_throughput_is_steady_while_the_queue_grows(overloaded):
    """Tokens of the steps by quarters of the time in which requests arrive: no collapse, no drift."""
    steps, requests = overloaded.frames["steps"], overloaded.frames["requests"]
    edges = np.linspace(10, requests.arrival_s.max(), 5)
    made = (steps.decode_seqs * steps["count"]).to_numpy()
    each = np.histogram(steps.end_s, edges, weights=made)[0]
    assert each.min() > 0.85 * each.max()
    first, last = requests[:100].queue_s.mean(), requests[-100:].queue_s.mean()
    assert last > 3 * first


def test_twice_the_load_is_served_at_the_same_rate(run, load, overloaded):
    twice = [(t / 2, *rest) for t, *rest in load]
    rate = run(twice, blocks=BLOCKS).summary["throughput"]["output_tokens_per_s"]
    assert rate == pytest.approx(overloaded.summary["throughput"]["output_tokens_per_s"], rel=0.03)


def test_more_memory_means_fewer_preemptions_and_more_throughput(run, load):
    results = [run(load, blocks=blocks).summary for blocks in (400, 600, 1200, 6000)]
    lost = [summary["preemptions"] for summary in results]
    rates = [summary["throughput"]["output_tokens_per_s"] for summary in results]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] == 0
    assert rates == sorted(rates)


def test_a_tier_behind_hbm_replaces_computing_again_by_loading(run, load, overloaded):
    """What a preempted request loses of its prompt is in DRAM: it is loaded, and the slower the link the later."""
    plain = overloaded.summary
    rates = ("50 GB/s", "5 GB/s", "0.5 GB/s")
    found = [run(load, blocks=BLOCKS, dram="20 GiB", links={"pcie_h2d": {"bandwidth": rate}}) for rate in rates]
    fast = found[0].summary
    assert fast["prefix"]["recomputed_tokens"] < 0.7 * plain["prefix"]["recomputed_tokens"]
    assert fast["tiers"]["dram"]["loaded_bytes"] > 0
    for result in found:
        requests = result.frames["requests"]
        hits = requests.hit_hbm_tokens + requests.hit_dram_tokens
        assert (hits + requests.computed_tokens - requests.recomputed_tokens == requests.input_tokens).all()
    e2e = [result.summary["e2e_ms"]["mean"] for result in found]
    assert e2e == sorted(e2e)


# ---- load or recompute


def times(hand, tokens, rate):
    """TTFT of a prompt whose blocks are in DRAM, by loading and by computing, s: closed forms."""
    reused = (tokens - 1) // 16 * 16
    alpha, _ = hand.group("links.pcie_h2d.loop", "alpha", "beta")
    load = reused // 16 * alpha + reused * hand.token_bytes / rate
    budget = 8192
    chunks = [(min(budget, tokens - start), start) for start in range(0, tokens, budget)]
    compute = sum(hand.mixed_step([chunk], sampled=int(chunk is chunks[-1])) for chunk in chunks)
    return load + hand.mixed_step([(tokens - reused, reused)], sampled=1), compute


@pytest.mark.parametrize("gigabytes", [4.6, 5.0, 5.5])
def test_loading_overtakes_computing_at_the_length_where_bandwidth_and_prefill_put_it(
    run, hand, quiet_profile, gigabytes
):
    """A token costs the same to load anywhere, and more to compute the more come before it: they cross once."""
    rate, lengths = gigabytes * 1e9, range(1024, 32_769, 512)
    faster = [times(hand, n, rate)[0] < times(hand, n, rate)[1] for n in lengths]
    cross = faster.index(True)
    assert 0 < cross < len(faster) - 1
    assert all(faster[cross:])
    for place in (cross - 4, cross - 1, cross, cross + 4):
        tokens = lengths[max(0, place)]
        ids = list(range(-(-tokens // 512)))
        other = [1000 + i for i in range(64)]
        rows = [(0, tokens, 1, ids), (100, 32_768, 1, other), (200, tokens, 1, ids)]
        found = {}
        for choose in ("always", "by_cost"):
            found[choose] = run(
                rows,
                blocks=2049,
                dram="100 GiB",
                engine={"loading": {"choose": choose}},
                links={"pcie_h2d": {"bandwidth": f"{gigabytes} GB/s"}},
                hardware={"profile": quiet_profile},
            ).frames["requests"]
        load, compute = times(hand, tokens, rate)
        assert found["always"].ttft_s[0] == pytest.approx(compute, rel=1e-6)
        assert found["always"].ttft_s[2] == pytest.approx(load, rel=1e-6)
        chosen = found["by_cost"].iloc[2]
        assert chosen.ttft_s == pytest.approx(min(load, compute), rel=0.01)
        if abs(place - cross) > 1:  # nearer than that, what is left to compute in a step of its own decides
            assert (chosen.hit_dram_tokens > 0) == (load < compute)
