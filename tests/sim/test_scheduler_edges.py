"""Corners of the scheduler and the cache in which something has to give way."""

import pytest


def finished(result):
    return list(result.frames["requests"].status) == ["finished"] * len(result.frames["requests"])


@pytest.mark.parametrize("dram", [None, "10 GiB"])
def test_a_cached_prompt_as_large_as_the_cache_is_served_again(run, prompt, dram):
    """1,024 tokens in 64 blocks: the repeat reuses 1,008 and computes 16, which fit only where the old ones were."""
    rows = [(0, 1024, 1, prompt(0, 1024)), (10, 1024, 1, prompt(0, 1024))]
    result = run(rows, blocks=64, dram=dram)
    assert finished(result)
    assert result.frames["requests"].computed_tokens[1] < 1024


def test_a_prompt_that_repeats_a_block_is_served(run):
    """Ids that are not prefix-chained are read with a warning; they must not break the books."""
    rows = [(0, 1024, 1, [5, 5]), (10, 2048, 1, [7, 8, 9, 10]), (20, 1024, 1, [5, 5])]
    assert finished(run(rows, blocks=128, dram="10 GiB"))


def test_a_loaded_request_starts_when_all_running_ones_were_preempted(run, prompt):
    """The prefix that waits in HBM blocks the only running request, which gives way: the waiting one must run."""
    prefix = prompt(1, 1536)
    rows = [
        (0, 1536, 1, prefix),
        (20, 4000, 1, prompt(3, 4000)),  # drives the prefix out of HBM
        (30, 2400, 400, prompt(4, 2400)),
        (30.1, 2600, 1, [*prefix, 91, 92, 93]),  # 96 blocks loaded, 67 more needed
    ]
    result = run(rows, blocks=256, dram="10 GiB", engine={"reserve_full_isl": False})
    assert finished(result)
    requests = result.frames["requests"]
    assert requests.hit_dram_tokens[3] == 1536
    assert requests.preemptions[2] > 0
    assert requests.first_token_s[3] < requests.finish_s[2]


def test_a_preempted_prompt_may_find_more_than_it_had_computed(run, prompt):
    """While request 2 waits to be computed again, another replica computes the same prompt and stores it."""
    rows = [
        (0, 2000, 600, prompt(1, 2000)),
        (0, 16, 1, prompt(2, 16)),
        (0, 2000, 1, prompt(3, 2000)),
        (1.1, 2000, 1, prompt(3, 2000)),
    ]
    result = run(
        rows,
        blocks=200,
        dram="10 GiB",
        shared="node",
        engine={"max_num_seqs": 8, "max_num_batched_tokens": 16, "reserve_full_isl": False},
        hardware={"profile": "h100-sxm", "replicas": 2},
    )
    row = result.frames["requests"].iloc[2]
    assert finished(result)
    assert row.preemptions >= 1
    found = row.hit_hbm_tokens + row.hit_dram_tokens  # nothing when it was first admitted
    assert found > 0
    assert 0 < row.computed_tokens < 2000
    assert found + row.computed_tokens - row.recomputed_tokens == 2000


def test_a_head_that_does_not_fit_holds_up_those_behind_it(run, prompt):
    """FCFS: a small request does not overtake a large one that waits for memory."""
    rows = [(0, 1500, 300, prompt(0, 1500)), (0.1, 1500, 1, prompt(1, 1500)), (0.2, 16, 1, prompt(2, 16))]
    requests = run(rows, blocks=120).frames["requests"]
    assert requests.first_chunk_s[1] >= requests.finish_s[0]
    assert requests.first_chunk_s[2] >= requests.first_chunk_s[1]


def test_one_token_outputs_end_with_their_prefill(run, prompt):
    requests = run([(0, 100, 1, prompt(0, 100))]).frames["requests"]
    assert requests.finish_s[0] == requests.first_token_s[0]
    assert requests.tpot_s.isna().all()


def test_requests_of_the_same_moment_share_what_the_first_computes(run, prompt):
    """vLLM caches blocks when it schedules the step, so the second prompt of one step reuses the first's."""
    rows = [(0, 1040, 1, prompt(0, 1040)), (0, 1040, 1, prompt(0, 1040))]
    requests = run(rows).frames["requests"]
    assert list(requests.computed_tokens) == [1040, 16]
    assert requests.first_token_s[0] == requests.first_token_s[1]


def test_room_for_a_whole_prompt_or_for_its_first_chunk(run, prompt):
    """Of 100 blocks 40 are in use; a prompt of 80 starts with 64 of them only if it need not have all at once."""
    rows = [(0, 640, 300, prompt(0, 640)), (0.1, 1280, 1, prompt(1, 1280))]
    started = {}
    for whole in (True, False):
        engine = {"reserve_full_isl": whole, "max_num_batched_tokens": 256, "max_num_seqs": 8}
        result = run(rows, blocks=100, engine=engine)
        assert finished(result)
        requests = result.frames["requests"]
        started[whole] = requests.first_chunk_s[1] - requests.finish_s[0]
        assert (result.summary["preemptions"] > 0) is not whole
    assert started[False] < 0 <= started[True]


@pytest.mark.parametrize(("share", "starts_beside"), [(0.0, True), (0.05, True), (0.1, True), (0.2, False)])
def test_a_watermark_is_kept_free_beside_others(run, prompt, share, starts_beside):
    """50 of 100 blocks are in use, and a prompt needs 40: 10 are left, which may be kept free, and 20 are not."""
    rows = [(0, 784, 10, prompt(0, 784)), (0.001, 640, 1, prompt(1, 640))]
    requests = run(rows, blocks=100, engine={"watermark": share}).frames["requests"]
    assert bool(requests.first_chunk_s[1] < requests.finish_s[0]) is starts_beside
    alone = run([(0, 1440, 1, prompt(0, 1440))], blocks=100, engine={"watermark": 0.5})
    assert finished(alone)
