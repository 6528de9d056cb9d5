"""Prefill and decode on different replicas: closed forms of lone requests, and the sum of the parts."""

import numpy as np
import pytest

from tests.sim.disaggregation_cases import load, rate

# ---- one request alone


@pytest.mark.parametrize("latency_s", [0.0, 0.003])
@pytest.mark.parametrize("bandwidth", [50e9, 1e9])
def test_a_whole_prompt_takes_latency_and_bytes(apart, hand, prompt, bandwidth, latency_s):
    result = apart([(1, 3000, 5, prompt(1, 3000))], link=rate(bandwidth, f"{latency_s} s"))
    row = result.frames["requests"].iloc[0]
    took = latency_s + 3000 * hand.token_bytes / bandwidth
    assert row.first_token_s == pytest.approx(1 + hand.mixed_step([(3000, 0)], 1), rel=1e-9)
    assert row.transfer_s == row.decode_transfer_s == pytest.approx(took, rel=1e-9)
    assert row.decode_memory_s == row.decode_place_s == 0
    decode = [hand.decode_step(1, 3001 + i) for i in range(4)]
    assert row.second_token_s - row.first_token_s == pytest.approx(took + decode[0], rel=1e-9)
    assert row.e2e_s - row.ttft_s == pytest.approx(took + sum(decode), rel=1e-9)
    assert result.summary["itl_ms"]["max"] == pytest.approx(1e3 * (took + decode[0]), rel=1e-9)
    assert row.replica == 0
    assert row.decode_replica == 1
    assert any(text.startswith("Prefill and decode on different") for text in result.summary["assumptions"])


@pytest.mark.parametrize("groups", [2, 8, 32, 100])
@pytest.mark.parametrize("bandwidth", [1e12, 20e9, 5e9, 1e9])
def test_layers_leave_while_the_prompt_is_computed(apart, hand, prompt, bandwidth, groups):
    """The pipeline of equal parts: the longer of computing and sending, and one part of the other."""
    tokens, sent = 6000, min(groups, hand.layers)
    result = apart(
        [(0, tokens, 2, prompt(1, tokens))], link=rate(bandwidth), pools={"transfer": "layer", "groups": groups}
    )
    row = result.frames["requests"].iloc[0]
    compute, send = hand.mixed_step([(tokens, 0)], 1), tokens * hand.token_bytes / bandwidth
    landed = row.first_token_s + row.decode_memory_s + row.decode_transfer_s
    assert landed == pytest.approx(max(compute + send / sent, compute / sent + send), rel=1e-9)
    assert row.transfer_s == pytest.approx(landed - compute / sent, rel=1e-9)


@pytest.mark.parametrize("bandwidth", [1e12, 20e9, 5e9, 1e9])
def test_chunks_leave_as_they_are_computed(apart, hand, prompt, bandwidth):
    tokens, chunk = 5000, 2048
    result = apart(
        [(0, tokens, 2, prompt(1, tokens))],
        link=rate(bandwidth),
        pools={"transfer": "chunk"},
        engine={"max_num_batched_tokens": chunk},
    )
    now = landed = 0.0
    for start in range(0, tokens, chunk):
        size = min(chunk, tokens - start)
        now += hand.mixed_step([(size, start)], int(start + size == tokens))
        landed = max(landed, now) + size * hand.token_bytes / bandwidth
    row = result.frames["requests"].iloc[0]
    assert row.first_token_s == pytest.approx(now, rel=1e-9)
    assert row.decode_start_s == pytest.approx(landed, rel=1e-9)


def test_an_instant_link_leaves_one_request_as_it_is_on_one_replica(apart, run, hand, prompt):
    rows = [(0.5, 4000, 40, prompt(1, 4000))]
    two = apart(rows).frames["requests"].iloc[0]
    one = run(rows, hardware={"profile": str(hand.profile)}).frames["requests"].iloc[0]
    assert (two.ttft_s, two.e2e_s, two.tpot_s) == (one.ttft_s, one.e2e_s, one.tpot_s)


def test_one_token_is_not_handed_over(apart, prompt):
    result = apart([(0, 600, 1, prompt(1, 600))])
    row = result.frames["requests"].iloc[0]
    assert (row.status, row.decode_replica, row.transfer_bytes) == ("finished", -1, 0)
    assert row.e2e_s == row.ttft_s
    assert result.summary["disaggregation"]["requests"] == 0
    assert result.summary["disaggregation"]["transfer_ms"]["mean"] is None


def test_a_link_of_gpus_is_as_wide_as_the_replica(apart, hand, prompt):
    rows = [(0, 3000, 2, prompt(1, 3000))]
    seconds = {}
    for tp in (1, 2):
        for per in ("gpu", "node"):
            row = apart(rows, link={**rate(1e9), "per": per}, hardware={"tp": tp}).frames["requests"].iloc[0]
            seconds[tp, per] = row.transfer_s
    alone = 3000 * hand.token_bytes / 1e9
    assert seconds == pytest.approx({(1, "gpu"): alone, (2, "gpu"): alone / 2, (1, "node"): alone, (2, "node"): alone})


# ---- many: an instant link equals the sum of its parts


@pytest.mark.parametrize("transfer", ["whole", "chunk", "layer"])
def test_the_prefill_pool_is_a_run_with_one_output_token(apart, run, hand, transfer):
    rows = load()
    two = apart(rows, 2, 2, pools={"transfer": transfer}).frames["requests"]
    alone = run(
        [(t, n, 1, ids) for t, n, _, ids in rows], hardware={"profile": str(hand.profile), "replicas": 2}
    ).frames["requests"]
    assert (two.first_token_s == alone.first_token_s).all()
    assert (two.replica == alone.replica).all()


@pytest.mark.parametrize("transfer", ["whole", "chunk", "layer"])
def test_the_decode_pool_is_steps_over_what_has_arrived(apart, hand, transfer):
    """Written out: a step takes all whose KV is here when the step before it ends, and memory when they came."""
    rows = load()
    found = apart(rows, 2, 1, pools={"transfer": transfer}).frames["requests"]
    coming = sorted((first, i) for i, first in enumerate(found.first_token_s))
    now, active, ends, asking = 0.0, {}, {}, []
    while coming or active or asking:
        if not (active or asking):
            now = max(now, coming[0][0])
        landed, asking = asking, []
        while coming and coming[0][0] <= now:
            asking.append(coming.pop(0)[1])
        if transfer != "whole" or not active:  # memory was asked for before; or is there at once when nothing runs
            landed, asking = landed + asking, []
        active |= dict.fromkeys(landed, 0)
        if not active:
            continue
        context = sum(rows[i][1] + 1 + made for i, made in active.items())
        now += hand.decode_step(len(active), context)
        for i in list(active):
            active[i] += 1
            if active[i] == rows[i][2] - 1:
                ends[i] = now
                del active[i]
    assert np.allclose(found.finish_s, [ends[i] for i in range(len(rows))], rtol=1e-9)


def test_a_slower_link_is_never_faster(apart):
    rows = load(40)
    for transfer in ("whole", "chunk", "layer"):
        runs = [apart(rows, 1, 2, link=rate(b), pools={"transfer": transfer}) for b in (1e30, 100e9, 20e9, 5e9, 1e9)]
        e2e = [r.summary["e2e_ms"]["mean"] for r in runs]
        assert e2e == sorted(e2e)
        assert len({r.summary["ttft_ms"]["mean"] for r in runs}) == 1  # memory is not short


def test_what_leaves_earlier_arrives_earlier(apart):
    rows = load(30)
    waited = [
        apart(rows, 1, 2, link=rate(20e9), pools={"transfer": t}, engine={"max_num_batched_tokens": 1024}).summary[
            "disaggregation"
        ]["transfer_wait_ms"]["mean"]
        for t in ("layer", "chunk", "whole")
    ]
    assert waited[0] < waited[1] < waited[2]
