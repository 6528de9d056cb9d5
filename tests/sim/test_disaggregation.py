"""Prefill and decode on different replicas: closed forms of lone requests, and the sum of the parts."""

import numpy as np
import pytest

from hw_profiles.errors import InputError
from sim.attribution import BETWEEN

PROFILE = "h100-sxm"
INSTANT = {"bandwidth": "1e30 B/s", "latency": "0 s"}


@pytest.fixture
def apart(run, hand):
    """A run with `prefill` and `decode` instances over a link."""

    def go(rows=None, prefill=1, decode=1, *, link=INSTANT, single_step=False, pools=None, hardware=None, **sections):
        return run(
            rows,
            hardware={"profile": str(hand.profile), "replicas": prefill + decode, **(hardware or {})},
            disaggregation={"prefill": prefill, "decode": decode, "link": link, **(pools or {})},
            single_step=single_step,
            **sections,
        )

    return go


def rate(bytes_per_s, latency="0 s"):
    return {"bandwidth": f"{bytes_per_s!r} B/s", "latency": latency}


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


def load(count=60, seed=3, gap=0.02):
    """Requests of their own prompts, so that nothing is shared."""
    draw = np.random.default_rng(seed)
    times = np.cumsum(draw.exponential(gap, count))
    return [
        (float(t), int(n), int(o), [1000 * i + j for j in range(-(-int(n) // 512))])
        for i, (t, n, o) in enumerate(
            zip(times, draw.integers(100, 6000, count), draw.integers(2, 80, count), strict=True)
        )
    ]


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


# ---- accounts


@pytest.mark.parametrize("transfer", ["whole", "chunk", "layer"])
def test_e2e_splits_exactly(apart, prompt, transfer):
    rows = [(0.01 * i, 1500, 300, prompt(i, 1500)) for i in range(8)]
    result = apart(rows, 1, 1, blocks=300, link=rate(5e9), pools={"transfer": transfer})
    frame = result.frames["requests"]
    between = [f"decode_{part}_s" for part in BETWEEN]
    decoding = [c for c in frame if c.startswith("decode_") and c.endswith("_s") and c != "decode_start_s"]
    prefill = [c for c in frame if c.startswith("prefill_") and c != "prefill_s"]
    assert np.allclose(frame[decoding].sum(axis=1), frame.e2e_s - frame.ttft_s, rtol=0, atol=1e-9)
    assert np.allclose(frame[prefill].sum(axis=1), frame.prefill_s, rtol=0, atol=1e-9)
    assert np.allclose(frame[between].sum(axis=1), frame.decode_start_s - frame.first_token_s, rtol=0, atol=1e-9)
    assert (frame[between] >= 0).all(axis=None)
    parts = result.summary["attribution"]["e2e_ms"]["all"]
    assert sum(parts["parts"].values()) == pytest.approx(parts["mean"], rel=1e-9)
    assert parts["parts"]["handoff_transfer"] == pytest.approx(1e3 * frame.decode_transfer_s.mean())
    assert parts["parts"]["handoff_memory"] > 0


def test_without_it_nothing_is_said_of_it(run, prompt):
    result = run([(0, 600, 3, prompt(1, 600))])
    assert "disaggregation" not in result.summary
    assert "decode_replica" not in result.frames["requests"]
    assert "handoff_transfer" not in result.summary["attribution"]["e2e_ms"]["all"]["parts"]


def test_the_pools_say_how_many_replicas_there_are(scenario, prompt):
    rows = [(0, 600, 3, prompt(1, 600))]
    built = scenario(rows, hardware={"profile": PROFILE}, disaggregation={"prefill": 2, "decode": 3})
    assert built.spec.hardware.replicas == 5
    assert built.set("disaggregation.decode", 7).spec.hardware.replicas == 9
    assert built.resolved()["hardware"]["replicas"] == 5
    alone = built.set("disaggregation", None)
    assert alone.spec.hardware.replicas == 1


# ---- refused


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"hardware": {"profile": PROFILE, "replicas": 3}}, "hardware.replicas: disaggregation has 1 prefill and 1"),
        (
            {"engine": {"speculation": {"method": "mtp", "tokens": 1, "acceptance": 0.7}}},
            "engine.speculation: not with",
        ),
        ({"engine": {"kind": "sglang"}}, "engine.kind: not with disaggregation"),
        ({"engine": {"scheduling": "static", "prefix_caching": False}}, "engine.scheduling: two pools"),
        ({"engine": {"framework": "hf_concat"}}, "engine.scheduling: two pools"),
        ({"policies": {"retention": "h2o"}, "engine": {"prefix_caching": False}}, "policies.retention: what a policy"),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "transfer": "block"}},
            "disaggregation.transfer: found 'block'",
        ),
        ({"disaggregation": {"prefill": 0, "decode": 2}}, "disaggregation.prefill"),
        ({"disaggregation": {"prefill": 1, "decode": 1, "link": "rdma-900g"}}, "disaggregation.link.device: unknown"),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "link": "nvme-gen4"}},
            "disaggregation.link.device: a device of",
        ),
        ({"disaggregation": {"prefill": 1, "decode": 1, "link": {"bandwidth": "0 GB/s"}}}, "disaggregation.link.band"),
        ({"disaggregation": {"prefill": 1, "decode": 1, "routing": "fastest"}}, "disaggregation.routing"),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "prefill_engine": {"max_num_batched_tokens": 10**6}}},
            "more than engine.max_num_batched_tokens",
        ),
        (
            {"disaggregation": {"prefill": 1, "decode": 1, "decode_engine": {"max_num_batched_tokens": 8}}},
            "each decoding sequence takes a token",
        ),
    ],
)
def test_what_does_not_go_together_says_so(run, prompt, sections, said):
    base = {"hardware": {"profile": PROFILE, "replicas": 2}, "disaggregation": {"prefill": 1, "decode": 1}}
    with pytest.raises(InputError) as error:
        run([(0, 600, 3, prompt(1, 600))], **{**base, **sections})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


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
