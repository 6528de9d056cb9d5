"""Loads and stores against the alpha-beta formula of the links: when they start, how long they take, who waits."""

import pytest

A, B, C = 1600, 2000, 4000  # prompts of three families; C alone fills the HBM of the tests below (4,096 tokens)
BLOCKS = 256


@pytest.fixture
def evicted(prompt):
    """A and B are computed and stored; then C drives both out of HBM."""
    return [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C))]


def loads(result):
    table = result.frames["transfers"]
    return table[table.reason == "load"].reset_index(drop=True)


def hit(tokens):
    return (tokens - 1) // 16 * 16


def test_load_blocks_a_request_until_its_last_byte(run, hand, prompt, evicted):
    result = run([*evicted, (30, A, 1, prompt(1, A))], blocks=BLOCKS, dram="100 GiB")
    row = result.frames["requests"].iloc[3]
    load = hand.copy("pcie_h2d", hit(A))
    assert (row.hit_hbm_tokens, row.hit_dram_tokens) == (0, hit(A))
    assert row.admit_s == 30
    assert row.load_s == pytest.approx(load, rel=1e-9)
    assert row.queue_s == pytest.approx(0, abs=1e-12)
    assert row.first_chunk_s == row.load_done_s == pytest.approx(30 + load, rel=1e-12)
    assert row.ttft_s == pytest.approx(load + hand.mixed_step([(16, hit(A))], sampled=1), rel=1e-9)
    (transfer,) = loads(result).itertuples()
    assert (transfer.link, transfer.src, transfer.dst) == ("pcie_h2d", "dram", "hbm")
    assert (transfer.bytes, transfer.copies) == (hit(A) * hand.token_bytes, hit(A) // 16)
    assert (transfer.queued_s, transfer.start_s) == (30, 30)
    assert transfer.end_s == row.load_done_s
    assert result.summary["time"]["load_wait_s"] == pytest.approx(load, rel=1e-9)


def test_others_run_while_one_loads(run, hand, prompt, evicted, quiet_profile):
    load = hand.copy("pcie_h2d", hit(A))
    rows = [*evicted, (30, A, 1, prompt(1, A)), (30, 200, 1, prompt(4, 200)), (30 + load / 4, 100, 1, prompt(5, 100))]
    requests = run(rows, blocks=BLOCKS, dram="100 GiB", hardware={"profile": quiet_profile}).frames["requests"]
    other = hand.mixed_step([(200, 0)], sampled=1)
    assert requests.first_chunk_s[4] == 30
    assert requests.ttft_s[4] == pytest.approx(other, rel=1e-9)
    # the last arrival does not wait for the load either, only for the step in progress
    assert requests.first_chunk_s[5] == pytest.approx(max(30 + other, 30 + load / 4), rel=1e-12)
    # the loaded one starts with the first step after its load
    step_end = max(requests.first_token_s[t] for t in (4, 5) if requests.first_chunk_s[t] < 30 + load)
    assert requests.load_s[3] == pytest.approx(load, rel=1e-9)
    assert requests.first_chunk_s[3] == pytest.approx(max(30 + load, step_end), rel=1e-12)


def test_two_loads_queue_on_one_copy_engine(run, hand, prompt, evicted):
    rows = [*evicted, (30, A, 1, prompt(1, A)), (30, B, 1, prompt(2, B))]
    result = run(rows, blocks=BLOCKS, dram="100 GiB")
    first, second = (hand.copy("pcie_h2d", hit(n)) for n in (A, B))
    one, two = loads(result).itertuples()
    assert (one.queued_s, two.queued_s) == (30, 30)
    assert two.start_s == one.end_s == pytest.approx(30 + first, rel=1e-12)
    assert two.end_s == pytest.approx(30 + first + second, rel=1e-12)
    requests = result.frames["requests"]
    assert list(requests.load_s[3:]) == pytest.approx([first, first + second], rel=1e-9)
    link = result.summary["links"]["pcie_h2d"]
    assert link["busy_s"] == pytest.approx(first + second, rel=1e-9)
    assert link["queue_p99_ms"] == pytest.approx(990 * first, rel=1e-9)  # waits 0 and `first`: 0.99 of the way


def test_replicas_load_over_links_of_their_own(run, hand, prompt):
    fill = [(0, A, 1, prompt(1, A)), (0, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C)), (20, C, 1, prompt(4, C))]
    rows = [*fill, (30, A, 1, prompt(1, A)), (30, B, 1, prompt(2, B))]
    hardware = {"profile": "h100-sxm", "replicas": 2}
    result = run(rows, blocks=BLOCKS, dram="100 GiB", shared="node", hardware=hardware)
    assert sorted(loads(result).replica) == [0, 1]
    assert list(loads(result).start_s) == [30, 30]
    requests = result.frames["requests"]
    assert list(requests.load_s[4:]) == pytest.approx([hand.copy("pcie_h2d", hit(n)) for n in (A, B)], rel=1e-9)


def test_a_prefix_on_its_way_is_not_fetched_twice(run, hand, prompt, evicted):
    later = 30 + hand.copy("pcie_h2d", hit(A)) / 2
    rows = [*evicted, (30, A, 1, prompt(1, A)), (later, A, 1, prompt(1, A))]
    result = run(rows, blocks=BLOCKS, dram="100 GiB")
    (transfer,) = loads(result).itertuples()
    requests = result.frames["requests"]
    assert requests.load_done_s[3] == requests.load_done_s[4] == transfer.end_s
    assert requests.load_s[4] == pytest.approx(transfer.end_s - later, rel=1e-9)


def test_write_through_stores_at_the_end_of_the_step(run, hand, prompt):
    tokens = 1000  # 992 of them in whole engine blocks
    result = run([(0, tokens, 50, prompt(0, tokens))], dram="100 GiB")
    (transfer,) = result.frames["transfers"].itertuples()
    ttft = result.frames["requests"].ttft_s[0]
    assert (transfer.link, transfer.src, transfer.dst, transfer.reason) == ("pcie_d2h", "hbm", "dram", "store")
    assert (transfer.bytes, transfer.copies) == (992 * hand.token_bytes, 62)
    assert transfer.queued_s == transfer.start_s == ttft
    assert transfer.end_s - ttft == pytest.approx(hand.copy("pcie_d2h", 992), rel=1e-9)


def test_chunks_are_stored_one_by_one_in_order(run, hand, prompt):
    tokens = 20_000
    transfers = run([(0, tokens, 1, prompt(0, tokens))], dram="100 GiB").frames["transfers"]
    assert list(transfers.bytes) == [n * hand.token_bytes for n in (8192, 8192, 3616)]
    for before, after in zip(transfers.itertuples(), transfers[1:].itertuples(), strict=False):
        assert after.start_s == max(after.queued_s, before.end_s)


def test_what_is_still_being_stored_cannot_be_hit_below(run, hand, prompt):
    """Replica 1 asks the shared DRAM for a prefix at the moment replica 0 has computed it."""
    ttft = hand.mixed_step([(A, 0)], sampled=1)
    store = hand.copy("pcie_d2h", A)
    for wait, expected in ((0.5, 0), (1.5, hit(A))):
        rows = [(0, A, 1, prompt(1, A)), (ttft + wait * store, A, 1, prompt(1, A))]
        hardware = {"profile": "h100-sxm", "replicas": 2}
        result = run(rows, dram="100 GiB", shared="node", hardware=hardware)
        assert result.frames["requests"].hit_dram_tokens[1] == expected


def test_write_back_stores_what_is_evicted_and_the_step_waits(run, hand, prompt):
    """B needs memory that A holds: the least recently used blocks of A leave, and their copy holds up the step."""
    rows = [(0, A, 1, prompt(1, A)), (10, C, 1, prompt(3, C))]
    result = run(rows, blocks=BLOCKS, dram="100 GiB", offload="write_back")
    # 256 - 100 blocks are free and C takes 250: evict 94. A's blocks go last one first: 4, 32, 32, 32 engine blocks
    (transfer,) = result.frames["transfers"].itertuples()
    assert (transfer.reason, transfer.copies, transfer.bytes) == ("store", 100, A * hand.token_bytes)
    store = hand.copy("pcie_d2h", A)
    row = result.frames["requests"].iloc[1]
    assert transfer.start_s == 10
    assert row.ttft_s == pytest.approx(store + hand.mixed_step([(C, 0)], sampled=1), rel=1e-9)
    step = result.frames["steps"].iloc[1]
    assert step.stall_s == pytest.approx(store, rel=1e-9)
    assert step.start_s == transfer.end_s
    assert result.summary["time"]["store_wait_s"] == pytest.approx(store, rel=1e-9)


def test_a_load_waits_until_evicted_blocks_have_left(run, hand, prompt):
    """Loading A again needs memory of C, which is first copied away: the load follows the store."""
    rows = [(0, A, 1, prompt(1, A)), (10, C, 1, prompt(3, C)), (30, A, 1, prompt(1, A))]
    result = run(rows, blocks=BLOCKS, dram="100 GiB", offload="write_back")
    _, store, load = result.frames["transfers"].itertuples()
    assert (store.reason, store.queued_s, store.start_s) == ("store", 30, 30)
    assert load.reason == "load"
    assert load.queued_s == load.start_s == store.end_s
    wait = hand.copy("pcie_d2h", store.copies * 16) + hand.copy("pcie_h2d", hit(A))
    assert result.frames["requests"].load_s[2] == pytest.approx(wait, rel=1e-9)


def test_write_back_stores_what_a_block_has_gained_since(run, hand):
    """DRAM has 96 tokens of a block that was computed further later: the rest follows when it is evicted again."""
    filler = [(t, 4090, 1, [1000 * t + k for k in range(8)]) for t in (10, 30)]
    rows = [(0, 96, 1, [50]), filler[0], (20, 512, 1, [50]), filler[1], (40, 600, 1, [50, 51])]
    result = run(rows, blocks=BLOCKS, dram="100 GiB", offload="write_back")
    assert result.frames["requests"].hit_dram_tokens[4] == 512


def test_no_offload_moves_nothing(run, prompt, evicted):
    result = run([*evicted, (30, A, 1, prompt(1, A))], blocks=BLOCKS, dram="100 GiB", offload="none")
    assert len(result.frames["transfers"]) == 0
    assert result.frames["requests"].hit_dram_tokens.sum() == 0
    assert result.summary["tiers"]["dram"]["peak_bytes"] == 0
