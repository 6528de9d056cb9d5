"""engine.kind: sglang. Prompts before decoding, the estimate that admits, retraction, the queue, memory."""

import pytest

from sim.cluster import Cluster
from sim.cost.graphs import sglang_sizes
from sim.cost.memory import static_share
from sim.engine.prefill_first import NewTokenRatio
from sim.inputs import load_inputs

GIB = 2**30


def family(i, tokens):
    return [10 * i + k for k in range(-(-tokens // 512))]


@pytest.fixture
def served(run):
    """Requests, steps and summary of `rows` (arrival, prompt, output, and ids or nothing) under the engine."""

    def go(rows, *, blocks=60_000, kind="sglang", **engine):
        trace = [(*row, family(n, row[1])) if len(row) == 3 else row for n, row in enumerate(rows)]
        result = run(trace, blocks=blocks, engine={"kind": kind, **engine})
        return result.frames["requests"], result.frames["steps"], result.summary

    return go


def test_those_that_decode_wait_for_prompts_unless_chunks_are_mixed(served):
    rows = [(0, 500, 60), (0.1, 4000, 2)]
    _, steps, alone = served(rows)
    _, mixed, beside = served(rows, mixed_chunk=True)
    assert ((steps.decode_seqs == 0) | (steps.prefill_seqs == 0)).all()
    assert ((mixed.decode_seqs > 0) & (mixed.prefill_seqs > 0)).any()
    prompt = steps[steps.prefill_tokens == 4000].iloc[0]
    assert alone["itl_ms"]["max"] > 1e3 * (prompt.end_s - prompt.start_s)  # the gap spans that step and its own
    assert alone["itl_ms"]["max"] > beside["itl_ms"]["max"]


def test_gaps_between_tokens_add_up_to_decoding(served):
    """Rows that joined at other times wait for the same prompts; no second of it is lost."""
    rows = [(0.03 * i, 300 + 400 * (i % 3), 40) for i in range(12)]
    requests, _, summary = served(rows, max_num_batched_tokens=512, max_num_seqs=16)
    seconds = (requests.finish_s - requests.first_token_s).sum()
    assert summary["itl_ms"]["mean"] == pytest.approx(1e3 * seconds / (requests.output_tokens - 1).sum(), rel=1e-9)


def test_prompts_of_chunks_go_on_before_decoding(served):
    """A prompt of four chunks runs in four steps one after the other, with no decode step between them."""
    _, steps, _ = served([(0, 100, 200), (0.05, 4000, 2)], max_num_batched_tokens=1024, max_num_seqs=8)
    first = steps.index[steps.prefill_tokens == 1024][0]
    assert steps.loc[first : first + 3].prefill_tokens.tolist() == [1024, 1024, 1024, 928]


def test_admission_counts_the_whole_output_and_a_share_of_those_that_run(served):
    """Of a running request with 900 tokens to go, 0.7 are kept free; 0.07 with a tenth of the conservativeness."""
    rows = [(0, 100, 900), (0.1, 100, 300)]
    cautious, _, _ = served(rows, blocks=1100)
    bold, _, _ = served(rows, blocks=1100, schedule_conservativeness=0.1)
    assert cautious.admit_s[1] == cautious.finish_s[0]
    assert bold.admit_s[1] < bold.finish_s[0]


def test_who_has_the_fewest_tokens_gives_way_and_queues_behind_the_others(served):
    """vLLM would take the newest. Retracted, request 1 comes after the one that waited already."""
    rows = [(0, 600, 500), (0.5, 100, 500), (0.6, 100, 400), (0.7, 64, 3)]
    engine = {"blocks": 1500, "schedule_conservativeness": 0.02, "max_num_seqs": 3}
    requests, _, summary = served(rows, **engine)
    assert summary["preemptions"] > 0
    assert requests.preemptions.tolist()[0] == 0
    assert requests.preemptions[2] >= requests.preemptions[1]
    assert requests.first_chunk_s[3] < requests.finish_s[requests.preemptions.idxmax()]


def test_the_longest_cached_prefix_comes_first_by_lpm(served):
    shared = [900, 901]
    rows = [
        (0, 1024, 1, shared),  # leaves its prompt in the cache
        (1, 1500, 100, family(1, 1500)),  # runs while the others come
        (1.1, 1200, 2, family(2, 1200)),
        (1.2, 1200, 2, [*shared, 77]),
    ]
    by_arrival, _, _ = served(rows, max_num_seqs=1)
    by_prefix, _, _ = served(rows, max_num_seqs=1, schedule_policy="lpm")
    assert by_arrival.admit_s[2] < by_arrival.admit_s[3]
    assert by_prefix.admit_s[3] < by_prefix.admit_s[2]


def test_beyond_128_that_wait_lpm_is_by_arrival(served):
    rows = [(0, 512, 1, [900]), (1, 64, 300)]
    rows += [(1.1, 64, 1) for _ in range(130)] + [(1.2, 600, 1, [900, 901])]
    requests, _, _ = served(rows, max_num_seqs=1, schedule_policy="lpm")
    assert requests.admit_s.iloc[-1] > requests.admit_s.iloc[2]
    fewer, _, _ = served(rows[:100] + rows[-1:], max_num_seqs=1, schedule_policy="lpm")
    assert fewer.admit_s.iloc[-1] < fewer.admit_s.iloc[2]


def test_of_those_that_share_what_is_not_cached_one_goes_ahead(served):
    """Requests 1 and 2, which come while a long prompt runs, share a prefix that nobody has: 2 goes behind 3."""
    rows = [(0, 3500, 2), (0.001, 600, 2, [5, 6]), (0.002, 600, 2, [5, 7]), (0.003, 600, 2, [8, 9])]
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 700}
    by_prefix, _, _ = served(rows, schedule_policy="lpm", **limits)
    by_arrival, _, _ = served(rows, **limits)
    assert by_prefix.first_chunk_s[1] == by_prefix.first_chunk_s[3] < by_prefix.first_chunk_s[2]
    assert by_arrival.first_chunk_s[1] == by_arrival.first_chunk_s[2]


def test_the_ratio_falls_by_the_step_to_its_least():
    ratio = NewTokenRatio(1.0)
    assert ratio.at(0) == 0.7
    assert ratio.at(300) == pytest.approx((0.7 + 0.098) / 2)
    assert ratio.at(600) == ratio.at(10_000) == pytest.approx(0.098)
    ratio.reset(600, estimate=0.5)
    assert ratio.at(600) == 0.5 > ratio.at(700)
    ratio.reset(700, estimate=3.0)
    assert ratio.at(700) == 1.0
    assert NewTokenRatio(5.0).at(0) == 1.0


def test_hits_are_by_token_and_leaves_go_first(run, scenario):
    rows = [(0, 600, 1, [1, 2]), (5, 600, 1, [1, 2])]
    hits = run(rows, engine={"kind": "sglang"}).frames["requests"].hit_hbm_tokens[1]
    paged = run(rows, engine={"kind": "sglang", "block_tokens": 64}).frames["requests"].hit_hbm_tokens[1]
    assert (hits, paged) == (599, 576)
    for kind, leaf_only in (("sglang", True), ("vllm", False)):
        made = scenario(rows, engine={"kind": kind}, dram="1 GiB")
        tiers = Cluster(made, load_inputs(made)).tiers
        assert [tier.leaf_only for (tier,) in tiers] == [leaf_only, leaf_only]


def test_static_memory(scenario):
    def kv(**engine):
        made = scenario([(0, 16, 1, [0])], engine={"kind": "sglang", **engine}, hardware={"profile": "h100-sxm"})
        return load_inputs(made).budget

    half, default = kv(mem_fraction_static=0.5), kv()
    share = static_share(default.total, 8192, 256, 1)
    for budget, taken in ((half, 0.5), (default, share)):
        assert budget.usable == int(taken * budget.total)
        assert budget.blocks == (budget.usable - budget.weights - budget.reserved) // budget.block_bytes
    assert kv(max_num_batched_tokens=4096).blocks > default.blocks  # smaller chunks leave more


def test_static_share_by_hand():
    assert static_share(80 * GIB, 8192, 256, 1) == round((81_920 - (512 + 12_288 + 512 + 128)) / 81_920, 3)
    assert static_share(80 * GIB, 2048, 8, 1) == round((81_920 - 10_240) / 81_920, 3)
    assert static_share(24 * GIB, 2048, 24, 1) == round((24_576 - (512 + 3072 + 48 + 128)) / 24_576, 3)


def test_graph_sizes():
    assert sglang_sizes(80 * GIB, 1)[-1] == 256
    assert sglang_sizes(80 * GIB, 8)[-1] == 512
    assert sglang_sizes(24 * GIB, 1) == (1, 2, 4, 8, 12, 16, 24)
    assert sglang_sizes(180 * GIB, 1)[-1] == 512


def test_defaults_are_its_own(scenario):
    engine = scenario([(0, 16, 1, [0])], engine={"kind": "sglang"}).spec.engine
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.block_tokens) == (2048, 8192, 1)
    assert (engine.schedule_policy, engine.mixed_chunk, engine.schedule_conservativeness) == ("fcfs", False, 1.0)
    assert engine.mem_fraction_static is None


def test_who_is_alone_is_admitted_whatever_the_estimate_says(run):
    """A policy that keeps few tokens lets 1,000 + 4,000 tokens run in room for 3,000; the estimate refuses them."""
    engine = {"kind": "sglang", "prefix_caching": False}
    result = run([(0, 1000, 4000, [0, 1])], blocks=3000, engine=engine, policies={"retention": "streaming_llm"})
    assert result.frames["requests"].status[0] == "finished"
