"""One request, or a few equal ones, against step times written out by hand."""

import re

import pytest


def first(result):
    return result.frames["requests"].iloc[0]


@pytest.mark.parametrize(
    "chunks",
    [[(1000, 0)], [(8192, 0)], [(8192, 0), (8192, 8192), (3616, 16384)]],
    ids=["one chunk", "a full chunk", "three chunks"],
)
def test_ttft_of_a_lone_request(run, hand, prompt, chunks):
    tokens = sum(n for n, _ in chunks)
    result = run([(1.5, tokens, 1, prompt(0, tokens))])
    # only the last chunk samples a token; the steps before it skip the output head
    expected = sum(hand.mixed_step([c], sampled=int(c is chunks[-1])) for c in chunks)
    row = first(result)
    assert row.ttft_s == pytest.approx(expected, rel=1e-9)
    assert row.e2e_s == row.ttft_s
    assert row.queue_s == row.load_s == 0
    assert row.first_chunk_s == row.admit_s == 1.5
    steps = result.frames["steps"]
    assert list(steps.prefill_tokens) == [n for n, _ in chunks]


def test_slow_launches_bound_prefill_steps_but_not_replayed_decode_steps(run, hand, prompt, tmp_path):
    profile = tmp_path / "slow-host.yaml"
    text = hand.profile.read_text()
    assert "stream: {v: 2.7, unit: us" in text
    # intervals of the launch time would no longer hold the value
    slow = re.sub(r"stream: \{v: 2.7, unit: us, src: launch[^}]*\}", "stream: {v: 50, unit: us, src: launch}", text)
    profile.write_text(slow)
    result = run([(0, 16, 3, prompt(0, 16))], hardware={"profile": str(profile)})
    launches = (32 * 10 + 1) * 50e-6
    sampling = 4 * (50e-6 - 2.7e-6)  # launched outside of the graph, in every step
    busy = hand.linear(16, 1) + sampling + hand.prefill_attention((16, 0))
    assert busy < launches
    prefill, *decodes = result.frames["steps"].itertuples()
    assert prefill.launch_s == pytest.approx(launches - busy, rel=1e-9)
    assert prefill.end_s == pytest.approx(launches, rel=1e-9)
    assert [step.launch_s for step in decodes] == [0.0]
    decode = hand.decode_step(1, 17) + hand.decode_step(1, 18) + 2 * sampling
    assert decodes[-1].end_s - prefill.end_s == pytest.approx(decode, rel=1e-9)


def test_tpot_and_e2e_of_a_lone_request(run, hand, prompt):
    tokens, output = 700, 40
    row = first(run([(0, tokens, output, prompt(0, tokens))]))
    ttft = hand.mixed_step([(tokens, 0)], sampled=1)
    # the j-th decode step attends the prompt and the j tokens sampled so far
    decode = sum(hand.decode_step(1, tokens + j) for j in range(1, output))
    assert row.ttft_s == pytest.approx(ttft, rel=1e-9)
    assert row.e2e_s == pytest.approx(ttft + decode, rel=1e-9)
    assert row.tpot_s == pytest.approx(decode / (output - 1), rel=1e-9)


def test_itl_lies_between_the_first_and_the_last_decode_step(run, hand, prompt):
    tokens, output = 30_000, 400
    itl = run([(0, tokens, output, prompt(0, tokens))]).summary["itl_ms"]
    gaps = [1e3 * hand.decode_step(1, tokens + j) for j in range(1, output)]
    assert itl["mean"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-9)
    assert itl["max"] == pytest.approx(gaps[-1], rel=1e-9)
    assert itl["p50"] == pytest.approx(sorted(gaps)[len(gaps) // 2], rel=1e-3)  # bins are 0.1 % wide


def test_saturation_throughput(run, hand, prompt):
    """Equal requests in waves of max_num_seqs: one prefill step and output - 1 decode steps a wave."""
    tokens, output, batch, waves = 160, 101, 4, 5
    rows = [(0, tokens, output, prompt(i, tokens)) for i in range(batch * waves)]
    result = run(rows, engine={"max_num_seqs": batch})
    wave = hand.mixed_step([(tokens, 0)] * batch, sampled=batch)
    wave += sum(hand.decode_step(batch, batch * (tokens + j)) for j in range(1, output))
    throughput = result.summary["throughput"]
    assert throughput["requests_per_s"] == pytest.approx(batch / wave, rel=1e-9)
    assert throughput["output_tokens_per_s"] == pytest.approx(batch * output / wave, rel=1e-9)
    assert throughput["input_tokens_per_s"] == pytest.approx(batch * tokens / wave, rel=1e-9)
    assert result.summary["time"]["idle_s"] == pytest.approx(0, abs=1e-9)
    assert result.summary["time"]["compute_s"] == pytest.approx(waves * wave, rel=1e-9)


def test_prefill_shares_the_token_budget_with_decodes(run, hand, prompt):
    rows = [(0, 64, 200, prompt(0, 64)), (0.1, 2000, 1, prompt(1, 2000))]
    result = run(rows, engine={"max_num_batched_tokens": 512, "max_num_seqs": 8})
    steps = result.frames["steps"]
    mixed = steps[(steps.prefill_tokens > 0) & (steps.decode_seqs > 0)]
    assert list(mixed.prefill_tokens) == [511, 511, 511, 467]
    assert list(mixed.decode_seqs) == [1, 1, 1, 1]
    context = int(mixed.context_tokens.iloc[0])
    prefix = 0
    for i, (_, step) in enumerate(mixed.iterrows()):
        n = int(step.prefill_tokens)
        expected = hand.mixed_step([(n, prefix)], sampled=int(i == 3), seqs=1, context=context + i)
        assert step.end_s - step.start_s == pytest.approx(expected, rel=1e-9)
        prefix += n
    # the prefill begins when the step that was running at its arrival ends, and its chunks follow one another
    second = result.frames["requests"].iloc[1]
    assert second.first_chunk_s == mixed.start_s.iloc[0]
    assert 0 < second.queue_s <= hand.decode_step(1, 64 + 200)
    assert second.first_token_s == mixed.end_s.iloc[-1]
    assert (mixed.start_s.to_numpy()[1:] == mixed.end_s.to_numpy()[:-1]).all()


def test_prompts_of_one_step_share_it(run, hand, prompt):
    rows = [(0, 300, 1, prompt(0, 300)), (0, 500, 1, prompt(1, 500))]
    requests = run(rows).frames["requests"]
    expected = hand.mixed_step([(300, 0), (500, 0)], sampled=2)
    assert list(requests.ttft_s) == pytest.approx([expected, expected], rel=1e-9)


def test_batch_limit_makes_the_third_wait(run, prompt):
    rows = [(0, 64, 10, prompt(i, 64)) for i in range(3)]
    requests = run(rows, engine={"max_num_seqs": 2}).frames["requests"]
    assert requests.first_chunk_s[2] == requests.finish_s[0] == requests.finish_s[1]
    assert requests.queue_s[2] == requests.finish_s[0]


@pytest.mark.parametrize(
    ("tokens", "hit"),
    [(16, 0), (17, 16), (512, 496), (1024, 1008), (1030, 1024), (1040, 1024), (1041, 1040)],
)
def test_a_fully_cached_prompt_still_computes_its_last_token(run, prompt, tokens, hit):
    rows = [(0, tokens, 1, prompt(0, tokens)), (100, tokens, 1, prompt(0, tokens))]
    second = run(rows).frames["requests"].iloc[1]
    assert hit == (tokens - 1) // 16 * 16  # vLLM: at most floor((prompt - 1) / block) blocks
    assert second.hit_hbm_tokens == hit
    assert second.computed_tokens == tokens - hit


def test_cached_prefix_shortens_the_prefill(run, hand, prompt):
    shared = prompt(0, 1024)
    rows = [(0, 1024, 1, shared), (100, 1500, 1, [*shared, 99])]
    second = run(rows).frames["requests"].iloc[1]
    assert second.hit_hbm_tokens == 1024
    assert second.ttft_s == pytest.approx(hand.mixed_step([(476, 1024)], sampled=1), rel=1e-9)


def test_engine_block_size_sets_the_granularity_of_hits(run, prompt):
    rows = [(0, 1000, 1, prompt(0, 1000)), (100, 1000, 1, prompt(0, 1000))]
    for block, hit in ((16, 992), (64, 960), (256, 768), (512, 512)):
        second = run(rows, engine={"block_tokens": block}).frames["requests"].iloc[1]
        assert second.hit_hbm_tokens == hit, block
