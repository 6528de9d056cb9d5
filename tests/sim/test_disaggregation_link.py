"""Prefill and decode on different replicas: the link is shared, and memory is short on either side."""

import pytest

from tests.sim.disaggregation_cases import PROFILE, load, rate

# ---- the link is shared


def test_transfers_share_the_link_of_either_end(apart, hand, prompt):
    rows = [(0, 4000, 2, prompt(1, 4000)), (0, 4000, 2, prompt(2, 4000))]
    alone = 4000 * hand.token_bytes / 10e9
    for prefill, decode, times in ((2, 1, 2), (2, 2, 1), (1, 2, 2)):
        result = apart(rows, prefill, decode, link=rate(10e9), pools={"routing": "round_robin"})
        took = result.frames["requests"].transfer_s
        assert took[0] == pytest.approx(times * alone, rel=1e-6), (prefill, decode)
    links = result.summary["links"]
    assert (
        links["kv_link"]["bytes"] == 2 * 4000 * hand.token_bytes == links["kv_out"]["bytes"] == links["kv_in"]["bytes"]
    )


def test_the_remote_tier_is_behind_the_same_card(apart, hand, prompt):
    """What is stored on a remote tier leaves by the card of the node, as KV for decode instances does."""
    rows = [(0, 4096, 2, prompt(1, 4096))]
    tiers = [{"name": "hbm"}, {"name": "remote", "capacity": "1 TiB", "direct": True}]
    links = {"remote_write": rate(10e9), "remote_read": rate(10e9)}
    seconds = [
        apart(rows, link={**rate(10e9), "per": per}, tiers=tiers, links=links).frames["requests"].transfer_s[0]
        for per in ("gpu", "node")
    ]
    alone = 4096 * hand.token_bytes / 10e9
    assert seconds[0] == pytest.approx(alone, rel=1e-9)
    assert seconds[1] == pytest.approx(2 * alone, rel=0.05)


# ---- memory


def test_a_full_decode_pool_holds_up_the_prefill_pool(apart, prompt):
    rows = [(0.01 * i, 2000, 400, prompt(i, 2000)) for i in range(12)]
    small, large = (apart(rows, blocks=blocks) for blocks in (300, 3000))
    for result in (small, large):
        assert (result.frames["requests"].status == "finished").all()
    assert small.summary["disaggregation"]["memory_wait_ms"]["max"] > 1000
    assert large.summary["disaggregation"]["memory_wait_ms"]["max"] < 10
    assert small.summary["ttft_ms"]["max"] > 3 * large.summary["ttft_ms"]["max"]
    assert small.summary["disaggregation"]["pools"]["prefill"]["waiting"] > 0.3
    assert large.summary["disaggregation"]["pools"]["prefill"]["waiting"] == 0


@pytest.mark.parametrize("transfer", ["whole", "chunk", "layer"])
def test_decode_instances_compute_again_what_they_lose(apart, prompt, transfer):
    rows = [(0.01 * i, 1500, 600, prompt(i, 1500)) for i in range(6)]
    result = apart(rows, blocks=290, pools={"transfer": transfer})
    requests, lost = result.frames["requests"], result.frames["preemptions"]
    assert (requests.status == "finished").all()
    assert len(lost) == result.summary["disaggregation"]["preemptions"] > 0
    assert (lost.replica == 1).all()
    assert requests.recomputed_tokens.sum() > 1500
    assert requests.decode_recompute_s.sum() > 0


def test_what_the_decode_instance_has_is_not_sent(apart, hand, prompt):
    shared = prompt(1, 2048)
    rows = [(10 * i, 2100, 4, [*shared, 77 + i]) for i in range(3)]
    result = apart(rows)
    assert list(result.frames["requests"].transfer_bytes) == [2100 * hand.token_bytes, *[52 * hand.token_bytes] * 2]
    assert list(result.frames["requests"].decode_hit_tokens) == [0, 2048, 2048]
    assert result.summary["disaggregation"]["reused_bytes"] == 2 * 2048 * hand.token_bytes
    everything = apart(rows, pools={"reuse": False})
    assert everything.summary["disaggregation"]["bytes"] == 3 * 2100 * hand.token_bytes
    # the prompt's own reuse is that of the prefill instance
    assert result.summary["prefix"]["hit_tokens"] == {"hbm": 2 * 2048}


def test_limits_of_a_pool(apart, prompt):
    rows = [(0, 3000, 30, prompt(i, 3000)) for i in range(6)]
    plain = apart(rows)
    few = apart(rows, pools={"decode_engine": {"max_num_seqs": 2}})
    assert few.frames["steps"].query("replica == 1").decode_seqs.max() == 2
    assert (
        few.summary["disaggregation"]["place_wait_ms"]["max"] > plain.summary["disaggregation"]["place_wait_ms"]["max"]
    )
    short = apart(rows, pools={"prefill_engine": {"max_num_batched_tokens": 512}})
    assert short.frames["steps"].prefill_tokens.max() == 512
    assert short.summary["ttft_ms"]["max"] > plain.summary["ttft_ms"]["max"]


def test_the_decode_pool_has_a_router_of_its_own(apart, prompt):
    rows = [(5 * i, 2100, 4, [*prompt(1, 2048), 77 + i]) for i in range(4)]
    in_turn = apart(rows, 1, 2, pools={"routing": "round_robin"})
    by_prefix = apart(rows, 1, 2, pools={"routing": "prefix_aware"})
    assert list(in_turn.frames["requests"].decode_replica) == [1, 2, 1, 2]
    assert len(set(by_prefix.frames["requests"].decode_replica)) == 1
    assert by_prefix.summary["disaggregation"]["bytes"] < in_turn.summary["disaggregation"]["bytes"]


def test_a_closed_loop_finds_its_turns_on_the_prefill_instance(apart):
    chat = {"requests": 40, "rate": 4, "turns": 4, "think_time": "1 s", "first_tokens": {"mean": 2000, "sigma": 0.3}}
    result = apart(None, 1, 1, trace={"generate": chat})
    assert (result.frames["requests"].status == "finished").all()
    assert result.summary["prefix"]["hit_ratio"] > 0.3
    assert result.summary["disaggregation"]["reused_bytes"] > 0


def test_who_is_turned_away_is_not_handed_over(apart):
    rows = load(60, gap=0.005)
    result = apart(rows, 1, 2, admission_control={"name": "early_rejection", "ttft": "300 ms"})
    requests = result.frames["requests"]
    refused = requests.status == "rejected"
    assert 0 < refused.sum() < 60
    assert (requests.decode_replica[refused] == -1).all()
    assert list(requests.output_tokens) == [row[2] for row in rows]
    assert result.summary["disaggregation"]["requests"] == (~refused).sum()


# ---- memory that is short on either side


def test_two_prompts_that_fill_the_decode_instance_do_not_block_each_other(apart, prompt):
    """Neither has room for its next token, and nothing runs that would give memory back."""
    rows = [(0, 1024, 50, prompt(1, 1024)), (0, 1024, 50, prompt(2, 1024))]
    result = apart(rows, blocks=128)
    requests, lost = result.frames["requests"], result.frames["preemptions"]
    assert (requests.status == "finished").all()
    assert list(lost.request_id) == [1]
    assert requests.recomputed_tokens[1] > 0
    assert lost.start_s[0] == requests.decode_start_s[1]
    gap = requests.second_token_s - requests.first_token_s
    assert result.summary["itl_ms"]["max"] == pytest.approx(1e3 * gap.max())


@pytest.mark.parametrize("transfer", ["whole", "chunk", "layer"])
def test_a_prompt_waits_in_place_for_kv_that_leaves(apart, hand, prompt, transfer):
    """The prefill instance has no room for the second prompt's next chunk until the first one has left."""
    rows = [(0, 2048, 2, prompt(1, 2048)), (0, 2048, 2, prompt(2, 2048))]
    engine = {"max_num_batched_tokens": 512}
    result = apart(rows, blocks=200, link=rate(1e9), engine=engine, pools={"transfer": transfer})
    first, second = (row for _, row in result.frames["requests"].iterrows())
    assert result.summary["preemptions"] == 0
    assert second.first_token_s > first.decode_start_s > first.first_token_s
    room = apart(rows, blocks=400, link=rate(1e9), engine=engine, pools={"transfer": transfer})
    assert second.first_token_s > room.frames["requests"].first_token_s[1] + 0.05


def test_a_link_that_is_named_takes_values_below_it(scenario, prompt):
    """As `--set disaggregation.link.bandwidth=...` on `link: rdma-100g`."""
    pools = {"prefill": 1, "decode": 1, "link": "rdma-100g"}
    built = scenario([(0, 600, 3, prompt(1, 600))], hardware={"profile": PROFILE}, disaggregation=pools)
    link = built.set("disaggregation.link.bandwidth", "3 GB/s").set("disaggregation.link.per", "node")
    found = link.spec.disaggregation.link
    assert (found.device, found.bandwidth, found.per) == ("rdma-100g", 3e9, "node")


@pytest.mark.parametrize("transfer", ["whole", "chunk", "layer"])
def test_decode_instances_wait_for_the_link_and_not_for_prompts(apart, prompt, transfer):
    """Who is idle while a prompt is computed does not wait for its KV, though it holds memory for it already."""
    pools, engine = {"transfer": transfer}, {"max_num_batched_tokens": 1024}
    alone = apart([(0.5, 5000, 3, prompt(1, 5000))], link=rate(2e9), pools=pools, engine=engine)
    assert alone.summary["time"]["load_wait_s"] == pytest.approx(alone.frames["requests"].decode_transfer_s[0])
    instant = apart(load(30), 1, 2, pools=pools, engine=engine)
    assert instant.summary["time"]["load_wait_s"] == 0
    assert instant.summary["disaggregation"]["pools"]["decode"]["waiting"] == 0
