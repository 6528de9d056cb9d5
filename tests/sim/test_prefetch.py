"""Fetches into host memory while a request queues, and what the scheduler does when they are not complete."""

import pytest

A, B, C = 1600, 2000, 4000
BLOCKS = 256
DISK = {"ssd_read": {"bandwidth": "2 GB/s"}, "ssd_write": {"bandwidth": "2 GB/s"}}
WHOLE = A // 16 * 16


@pytest.fixture
def go(run, prompt):
    """A's blocks are on the disk alone (host memory holds one prompt); A comes back behind a long prefill."""

    def simulate(prefetch, **keywords):
        rows = [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C))]
        rows += [(30.0, 3900, 200, prompt(4, 3900)), (30.001, A, 1, prompt(1, A)), (30.002, 64, 1, prompt(6, 64))]
        tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "540 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
        policies = {"offload": "write_through", **({"prefetch": prefetch} if prefetch else {})}
        engine = {"max_num_batched_tokens": 512}
        return run(rows, blocks=400, tiers=tiers, links=DISK, policies=policies, engine=engine, **keywords)

    return simulate


def fetched(result):
    table = result.frames["transfers"]
    return table[table.reason == "prefetch"]


def test_a_fetch_starts_when_the_request_arrives_and_shortens_its_load(go):
    plain, early = go(None), go({"name": "on_arrival", "into": "dram", "stop": "wait_complete"})
    (transfer,) = fetched(early).itertuples()
    assert (transfer.src, transfer.dst, transfer.queued_s) == ("ssd", "dram", 30.001)
    assert fetched(plain).empty
    row, before = early.frames["requests"].iloc[4], plain.frames["requests"].iloc[4]
    assert row.hit_dram_tokens == before.hit_ssd_tokens > 0
    assert row.hit_ssd_tokens == 0
    assert row.load_s < before.load_s
    assert row.admit_s >= transfer.end_s


def test_best_effort_computes_what_has_not_arrived(go):
    row = go({"name": "on_arrival", "into": "dram"}).frames["requests"].iloc[4]
    assert row.hit_ssd_tokens == row.hit_dram_tokens == 0
    assert row.computed_tokens == A


@pytest.mark.parametrize("stop", ["best_effort", "timeout", "wait_complete"])
@pytest.mark.parametrize("single_step", [False, True])
def test_what_has_come_when_its_turn_does_is_used_and_no_more_is_fetched(run, prompt, stop, single_step):
    """8,192 tokens come from the disk in batches of 128 engine blocks (2,048 tokens, 128 ms each at 2 GiB/s); the turn
    comes after two or three of them."""
    tokens, batch = 8192, 2048
    rows = [(20 * i, tokens, 1, prompt(i, tokens)) for i in (1, 2, 3)]
    rows += [(80, 6000, 1, prompt(4, 6000)), (80.001, tokens + 100, 1, prompt(1, tokens + 100))]
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "2100 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
    prefetch = {"name": "on_arrival", "into": "dram", "stop": stop}
    if stop == "timeout":
        prefetch["timeout"] = "1 ms"
    result = run(
        rows,
        blocks=900,
        tiers=tiers,
        links={name: {"bandwidth": "2 GiB/s"} for name in ("ssd_read", "ssd_write")},
        policies={"offload": "write_through", "prefetch": prefetch},
        engine={"max_num_batched_tokens": 512},
        single_step=single_step,
    )
    row, came = result.frames["requests"].iloc[4], fetched(result)
    if stop == "wait_complete":
        assert len(came) == 1
        assert row.hit_dram_tokens == tokens
        return
    there = came[came.end_s <= row.admit_s]
    assert 0 < len(there) < tokens // batch
    assert row.hit_dram_tokens == batch * len(there)
    assert row.computed_tokens == tokens + 100 - batch * len(there)
    assert came.queued_s.max() <= row.admit_s
    assert len(came) == len(there) + 1  # the one on its way


def test_others_go_ahead_of_one_that_waits_for_its_fetch(go):
    requests = go({"name": "on_arrival", "into": "dram", "stop": "wait_complete"}).frames["requests"]
    assert requests.admit_s[5] < requests.admit_s[4]


def test_a_timeout_ends_the_wait(go):
    waits = {}
    for timeout in ("20 ms", "92 ms", "10 s"):
        policy = {"name": "on_arrival", "into": "dram", "stop": "timeout", "timeout": timeout}
        waits[timeout] = go(policy).frames["requests"].iloc[4]
    complete = go({"name": "on_arrival", "into": "dram", "stop": "wait_complete"}).frames["requests"].iloc[4]
    assert waits["10 s"].admit_s == complete.admit_s
    assert waits["20 ms"].admit_s < waits["92 ms"].admit_s < complete.admit_s
    assert waits["20 ms"].admit_s >= 30.001 + 0.020


def test_a_fetch_into_hbm_leaves_nothing_to_load(run, prompt):
    """Host memory has A, HBM lost it; A waits behind a prefill and finds its blocks in HBM, or joins them."""
    rows = [(0, A, 1, prompt(1, A)), (10, C, 1, prompt(3, C)), (30.0, 2000, 100, prompt(4, 2000))]
    rows.append((30.001, A, 1, prompt(1, A)))
    policies = {"prefetch": {"name": "on_arrival", "into": "hbm", "stop": "wait_complete"}}
    engine = {"max_num_batched_tokens": 512}
    for single_step in (False, True):
        plain = run(rows, blocks=BLOCKS, dram="10 GiB", engine=engine)
        early = run(rows, blocks=BLOCKS, dram="10 GiB", engine=engine, policies=policies, single_step=single_step)
        (transfer,) = fetched(early).itertuples()
        assert (transfer.src, transfer.dst) == ("dram", "hbm")
        assert 30.001 <= transfer.queued_s < plain.frames["requests"].admit_s[3]
        assert early.frames["requests"].hit_hbm_tokens[3] == plain.frames["requests"].hit_dram_tokens[3] > 0
        assert early.frames["requests"].load_s[3] == 0
        assert early.frames["requests"].ttft_s[3] < plain.frames["requests"].ttft_s[3]


@pytest.mark.parametrize("into", ["hbm", "dram"])
@pytest.mark.parametrize("stop", ["best_effort", "wait_complete", "timeout"])
def test_strides_equal_single_steps(go, same_requests, stop, into):
    policy = {"name": "on_arrival", "into": into, "stop": stop}
    same_requests(go(policy), go(policy, single_step=True))


@pytest.mark.parametrize("admission", [{"name": "by_size", "most_tokens": 100}, "second_hit"])
def test_admission_keeps_blocks_out(run, prompt, admission):
    rows = [(10.0 * i, A, 1, prompt(i, A)) for i in range(4)]
    all_in = run(rows, blocks=BLOCKS, dram="10 GiB")
    few = run(rows, blocks=BLOCKS, dram="10 GiB", policies={"admission": admission})
    assert all_in.summary["tiers"]["dram"]["stored_bytes"] > 0
    assert few.summary["tiers"]["dram"]["stored_bytes"] < all_in.summary["tiers"]["dram"]["stored_bytes"] / 2


def test_blocks_expire(run, prompt):
    rows = [(10.0 * i, A, 1, prompt(1, A)) for i in range(3)] + [(100.0, A, 1, prompt(1, A))]
    hits = run(rows, blocks=BLOCKS, policies={"eviction": {"name": "ttl", "ttl": "30 s"}}).frames["requests"]
    assert list(hits.hit_hbm_tokens > 0) == [False, True, True, False]


@pytest.mark.parametrize("stop", ["best_effort", "wait_complete"])
def test_what_a_fetch_had_no_room_for_is_loaded_from_where_it_is(run, prompt, stop):
    """Host memory has room for two of A's four blocks (64 MiB each); the disk has them all."""
    rows = [(0, 1024, 1, prompt(1, 1024)), (10, A, 1, prompt(1, A)), (20, C, 1, prompt(3, C))]
    rows.append((60, A, 1, prompt(1, A)))
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "130 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
    policies = {"offload": "write_through", "prefetch": {"name": "on_arrival", "into": "dram", "stop": stop}}
    result = run(rows, blocks=256, tiers=tiers, links=DISK, policies=policies)
    transfer = list(fetched(result).itertuples())[-1]
    assert (transfer.queued_s, transfer.bytes) == (60, 2 * 64 * 2**20)
    row = result.frames["requests"].iloc[3]
    if stop == "wait_complete":
        assert (row.hit_dram_tokens, row.hit_ssd_tokens) == (1024, WHOLE - 16 - 1024)
    else:  # it does not wait for what is on its way, and does not load it a second time
        assert row.hit_dram_tokens == row.hit_ssd_tokens == 0
    loads = result.frames["transfers"].query("reason == 'load' and src == 'ssd' and queued_s > 50")
    assert (not loads.empty) == (stop == "wait_complete")


FOR_OTHERS = """
from kvsim import Fetch, PrefetchPolicy, Trigger


class ForOthers(PrefetchPolicy):
    '''Whoever comes, bring what another prompt begins with.'''

    listens = (Trigger.ARRIVED,)

    def __init__(self, *, own: bool = False) -> None:
        self.stop = "wait_complete"
        self._own = own
        self._first = ()

    def plan(self, trigger, request, cache):
        self._first = self._first or request.keys
        return (Fetch(request.keys if self._own else self._first, "dram"),)
"""


def test_a_request_does_not_wait_for_what_is_fetched_for_others(run, prompt, tmp_path):
    """B comes back and A's blocks, no business of B's, are fetched: B loads its own from the disk at once."""
    (tmp_path / "others.py").write_text(FOR_OTHERS)
    rows = [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C)), (60, B, 1, prompt(2, B))]
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "540 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
    rest = {"blocks": 256, "tiers": tiers, "links": DISK}
    plain = run(rows, policies={"offload": "write_through"}, **rest).frames["requests"].iloc[3]
    others = {"offload": "write_through", "prefetch": f"{tmp_path / 'others.py'}:ForOthers"}
    result = run(rows, policies=others, **rest)
    assert fetched(result).queued_s.max() == 60
    row = result.frames["requests"].iloc[3]
    assert row.hit_ssd_tokens == plain.hit_ssd_tokens > 0
    assert row.admit_s == plain.admit_s == 60


def test_fetches_during_strides_find_what_single_steps_left(run, same_requests):
    """Turns are fetched while others decode: what HBM still holds then depends on the steps that have begun by then."""
    clients = {
        "clients": 12,
        "conversations": 2,
        "rounds": 5,
        "first_input_tokens": {"mean": 1500, "sigma": 0.8},
        "input_tokens": 100,
        "output_tokens": {"mean": 300, "sigma": 0.5},
        "think_time": {"mean": "4 s"},
        "block_tokens": 64,
    }
    keywords = {
        "trace": {"clients": clients},
        "blocks": 700,
        "tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "1 GiB"}, {"name": "ssd", "capacity": "20 GiB"}],
        "links": DISK,
        "policies": {"prefetch": {"name": "next_turn", "into": "dram", "lead": "1 s", "estimate": "recorded"}},
    }
    strides, singles = run(**keywords), run(**keywords, single_step=True)
    same_requests(strides, singles)
    assert len(fetched(strides)) > 10
