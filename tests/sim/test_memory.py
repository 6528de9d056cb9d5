"""How many KV blocks fit, by hand, and what does not fit."""

from fractions import Fraction

import pytest

from hw_profiles.errors import InputError


def blocks_by_hand(hand, *, utilization="0.9", tokens=8192, seqs=256, block=16):
    exact = {}
    for key in ("hbm_bytes", "reserved_bytes"):
        entry = hand.raw["capacity"][key]
        exact[key] = int(Fraction(str(entry["v"])) * {"GiB": 2**30}[entry["unit"]])
    # gated MLP in and out, residual stream and one hidden copy per token in bf16; bf16 and fp32 logits per row
    activations = tokens * (3 * hand.inter + 2 * hand.hidden) * 2 + seqs * hand.vocab * 6
    usable = int(exact["hbm_bytes"] * Fraction(utilization))
    left = usable - hand.weight_bytes - activations - exact["reserved_bytes"]
    return left // (block * hand.token_bytes)


def budget(run, prompt, **engine):
    return run([(0, 16, 1, prompt(0, 16))], engine=engine).summary["hardware"]["hbm_budget"]


def test_weights_of_llama_8b(run, prompt, hand):
    assert hand.weight_bytes == 2 * 8_030_261_248
    assert budget(run, prompt)["weights"] == hand.weight_bytes


@pytest.mark.parametrize(
    ("engine", "by_hand"),
    [
        ({}, {}),
        ({"gpu_memory_utilization": 0.5}, {"utilization": "0.5"}),
        ({"max_num_batched_tokens": 2048}, {"tokens": 2048}),
        ({"max_num_seqs": 1024}, {"seqs": 1024}),
        ({"block_tokens": 512}, {"block": 512}),
    ],
)
def test_block_count(run, prompt, hand, engine, by_hand):
    expected = blocks_by_hand(hand, **by_hand)
    found = budget(run, prompt, **engine)
    assert found["blocks"] == expected
    assert found["kv"] == expected * by_hand.get("block", 16) * hand.token_bytes


def test_block_count_is_a_sensible_share_of_80_gb(hand):
    assert 24_000 < blocks_by_hand(hand) < 28_500  # vLLM reports about 27,000 blocks for this model on this GPU


def test_larger_utilization_gives_more_blocks(run, prompt):
    counts = [budget(run, prompt, gpu_memory_utilization=u)["blocks"] for u in (0.5, 0.7, 0.9, 1)]
    assert counts == sorted(set(counts))


def test_exact_block_count_and_exact_capacity_agree(run, prompt, hand):
    rows = [(0, 900, 5, prompt(0, 900)), (5, 900, 5, prompt(1, 900))]
    by_count = run(rows, blocks=100)
    capacity = f"{100 * 16 * hand.token_bytes} B"
    by_capacity = run(rows, tiers=[{"name": "hbm", "capacity": capacity}])
    assert by_count.summary["tiers"]["hbm"]["capacity_bytes"] == 100 * 16 * hand.token_bytes
    assert by_count.frames["requests"].equals(by_capacity.frames["requests"])


def test_model_that_does_not_fit(scenario, prompt):
    with pytest.raises(InputError, match=r"llama-3.1-8b does not fit the HBM of h100-sxm: weights 15.0 GiB") as error:
        scenario([(0, 16, 1, prompt(0, 16))], engine={"gpu_memory_utilization": 0.1}).run()
    assert "\n" not in str(error.value)


def test_more_blocks_than_the_gpu_has_memory(scenario, prompt, hand):
    too_many = int(80e9) // (16 * hand.token_bytes)
    with pytest.raises(InputError, match=f"{too_many} blocks of 16 tokens need"):
        scenario([(0, 16, 1, prompt(0, 16))], blocks=too_many).run()


def test_request_longer_than_the_cache_is_rejected_and_the_others_finish(run, prompt):
    # 64 blocks hold 1,024 tokens; the KV of the last output token is never needed
    rows = [(0, 1000, 25, prompt(0, 1000)), (1, 1000, 26, prompt(1, 1000)), (2, 100, 5, prompt(2, 100))]
    result = run(rows, blocks=64)
    requests = result.frames["requests"]
    assert list(requests.status) == ["finished", "rejected", "finished"]
    assert requests.reason[1] == "longer than the KV cache"
    assert result.summary["requests"] == {"arrived": 3, "finished": 2, "rejected": 1}
    assert any("1 requests were rejected" in w or "1 request was rejected" in w for w in result.summary["warnings"])
    rejected = requests.iloc[1]
    for column in ("admit_s", "first_token_s", "finish_s", "ttft_s", "tpot_s", "e2e_s"):
        assert rejected[column] != rejected[column], column  # NaN
    assert rejected.computed_tokens == rejected.preemptions == 0


def test_request_longer_than_the_context_is_rejected(run, prompt):
    limit = 131_072
    rows = [(0, limit - 1, 1, prompt(0, limit - 1)), (0, limit, 1, prompt(1, limit))]
    requests = run(rows).frames["requests"]
    assert list(requests.status) == ["finished", "rejected"]
    assert requests.reason[1] == "longer than the model's context"


def test_everything_rejected_still_gives_a_summary(run, prompt):
    summary = run([(0, 100, 1, prompt(0, 100))], blocks=1).summary
    assert summary["requests"] == {"arrived": 1, "finished": 0, "rejected": 1}
    assert summary["ttft_ms"]["mean"] is None
    assert summary["throughput"]["requests_per_s"] == 0
