"""Conversations: the next turn finds the prompt and the answer of the turn before it in the cache."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.tables import EVICTION
from sim.cluster import Cluster
from sim.inputs import load_inputs
from sim.run import simulate

CHAT = {"clients": 1, "rounds": 4, "input_tokens": 300, "output_tokens": 100, "think_time": "2 s"}


def table(result):
    return result.frames["requests"].sort_values("request_id").reset_index(drop=True)


def said(rows, block=16):
    """Tokens in full blocks whose KV a turn leaves: its prompt and all of its answer but the last token."""
    return ((rows.input_tokens + rows.output_tokens - 1) // block * block).tolist()


@pytest.mark.parametrize("block", [16, 64])
@pytest.mark.parametrize("output", [1, 2, 15, 16, 17, 100])
def test_each_turn_hits_all_that_was_said(run, hand, block, output):
    """vLLM hashes full blocks of decoded tokens too: only what follows the last full block is computed again."""
    chat = {**CHAT, "output_tokens": output, "block_tokens": block}
    rows = table(run(trace={"clients": chat}, engine={"block_tokens": block}))
    hits = [0, *said(rows, block)[:-1]]
    assert rows.hit_hbm_tokens.tolist() == hits
    steps = [hand.mixed_step([(n - hit, hit)], sampled=1) for n, hit in zip(rows.input_tokens, hits, strict=True)]
    assert rows.ttft_s.tolist() == pytest.approx(steps, rel=1e-9)


def test_a_block_of_the_trace_may_hold_prompt_and_answer(run):
    """64 tokens behind one id, 16 to a block of the engine: a prompt ends within an id and the answer goes on there."""
    rows = table(run(trace={"clients": {**CHAT, "input_tokens": 333, "block_tokens": 64}}))
    assert rows.hit_hbm_tokens.tolist() == [0, *said(rows)[:-1]]


def test_recorded_conversations_chain_too(run):
    load = {"requests": 40, "rate": 0.02, "turns": 4, "think_time": "20 s", "first_tokens": {"mean": 900}}
    result = run(trace={"generate": load, "closed_loop": True}, seed=3)
    rows = table(result)
    linked = 0
    for _, session in rows.groupby("session"):
        session = session.sort_values("turn")
        if session.turn.iloc[0] != 0 or len(session) < 2:
            continue
        hits = (session.hit_hbm_tokens).tolist()[1:]
        assert hits == said(session)[:-1]
        linked += len(hits)
    assert linked > 5


def test_nobody_hits_an_answer_that_no_turn_carries(run, prompt):
    """The same prompt again, without a conversation: the answer of the first is of no use to the second."""
    rows = table(run([(0, 1024, 300, prompt(0, 1024)), (60, 1500, 1, prompt(0, 1500))]))
    assert rows.hit_hbm_tokens.tolist() == [0, 1024]


@pytest.mark.parametrize("offload", ["write_through", "write_back"])
def test_answers_are_offloaded_and_come_back(run, offload):
    """While others drive the conversation out of HBM, its answer waits in DRAM with its prompt."""
    chat = {
        **CHAT,
        "clients": 6,
        "rounds": 3,
        "input_tokens": 1200,
        "output_tokens": 400,
        "think_time": "30 s",
        "ramp_up": "24 s",
    }
    blocks = 512  # 8,192 tokens: two conversations of six
    rows = table(run(trace={"clients": chat}, blocks=blocks, dram="20 GiB", offload=offload))
    before = rows.set_index(["session", "turn"])
    for (session, turn), row in before.iterrows():
        expected = 0 if turn == 0 else said(before.loc[[(session, turn - 1)]])[0]
        assert row.hit_hbm_tokens + row.hit_dram_tokens == expected
    assert rows.hit_dram_tokens.sum() > 0


def test_a_preempted_answer_is_found_again_and_counted_once(run):
    chat = {**CHAT, "clients": 8, "rounds": 3, "input_tokens": 400, "output_tokens": 600, "think_time": "1 s"}
    result = run(trace={"clients": chat}, blocks=200)
    rows = table(result)
    assert result.summary["preemptions"] > 10
    hits = rows.hit_hbm_tokens
    assert (hits + rows.computed_tokens - rows.recomputed_tokens == rows.input_tokens).all()
    single = run(trace={"clients": chat}, blocks=200, single_step=True)
    assert table(single).equals(rows)


def test_the_bound_of_a_run_knows_of_answers(scenario):
    for blocks, dram in ((None, None), (300, None), (300, "2 GiB")):
        chat = {**CHAT, "clients": 4, "input_tokens": 700, "output_tokens": 500}
        bound = simulate(scenario(trace={"clients": chat}, blocks=blocks, dram=dram), bound=True).summary["bound"]
        assert bound["load_recompute_s"] >= bound["lower_bound_s"] * (1 - 1e-12)


def test_of_a_trace_whose_turns_drop_answers_none_is_carried(scenario):
    """Lengths tell: prompts that are shorter than what was said before do not carry it."""
    chat = {**CHAT, "clients": 3}
    inputs = load_inputs(built := scenario(trace={"clients": chat}))
    trace = inputs.trace
    later = trace.after[trace.after >= 0]
    assert (trace.carried_by[later] >= 0).all()
    assert (trace.carried_by >= 0).sum() == len(later)
    object.__setattr__(trace, "output_tokens", np.where(np.arange(len(trace)) % 3, 10_000, 100))
    del trace.__dict__["carried_by"]
    assert trace.carried_by is None
    assert not any(request.carried_ids for request in trace)
    assert Cluster(built, inputs).trace is trace


@st.composite
def talks(draw):
    """A few clients over small tiers, so that answers are evicted, offloaded, fetched and preempted."""
    chat = {
        "clients": draw(st.integers(1, 6)),
        "rounds": draw(st.integers(2, 4)),
        "input_tokens": draw(st.sampled_from([17, 300, {"mean": 500, "sigma": 1}])),
        "output_tokens": draw(st.sampled_from([1, 16, 90, {"mean": 200, "sigma": 1}])),
        "system_tokens": draw(st.sampled_from([0, 100])),
        "think_time": draw(st.sampled_from(["0 s", "50 ms", {"mean": "1 s"}])),
        "block_tokens": draw(st.sampled_from([16, 64, 512])),
    }
    policies = {
        "eviction": draw(st.sampled_from([name for name in EVICTION if name != "belady"])),
        "offload": draw(st.sampled_from(["none", "write_through", "write_back"])),
    }
    if draw(st.booleans()):
        policies["prefetch"] = {"name": "next_turn", "into": draw(st.sampled_from(["hbm", "dram"])), "lead": "100 ms"}
    return {
        "trace": {"clients": chat},
        "blocks": draw(st.sampled_from([260, 400, 2000])),
        "dram": draw(st.sampled_from(["100 MiB", "1 GiB", "20 GiB"])),
        "shared": draw(st.sampled_from(["private", "node"])),
        "policies": policies,
        "engine": {"max_num_seqs": draw(st.sampled_from([1, 3, 16])), "max_num_batched_tokens": 512},
        "hardware": {"profile": "h100-sxm", "replicas": draw(st.integers(1, 2))},
        "seed": draw(st.integers(0, 3)),
    }


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(talk=talks())
def test_books_of_conversations_balance_and_strides_are_steps(run, same_requests, talk):
    """`run` recounts every invariant; nobody finds more than was said before; prompt tokens are counted once."""
    result = run(**talk)
    rows = table(result)
    hits = rows.hit_hbm_tokens + rows.hit_dram_tokens
    done = rows.status == "finished"
    assert (hits + rows.computed_tokens - rows.recomputed_tokens == rows.input_tokens)[done].all()
    shared = talk["trace"]["clients"]["system_tokens"]
    before = rows.set_index(["session", "turn"])
    for (session, turn), row in before[done.to_numpy()].iterrows():
        known = 0 if turn == 0 else said(before.loc[[(session, turn - 1)]])[0]
        assert row.hit_hbm_tokens + row.hit_dram_tokens <= max(known, shared)
    same_requests(result, run(**talk, single_step=True))
