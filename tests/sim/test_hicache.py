"""HiCache's options in our words: time-out and threshold of the prefetch, least load, layouts, pages, writing."""

import pytest

from hw_profiles.devices import load_device
from hw_profiles.errors import InputError
from sim.scenario import Scenario

A, B, C = 1600, 2000, 4000
DISK = {"ssd_read": {"bandwidth": "2 GB/s"}, "ssd_write": {"bandwidth": "2 GB/s"}}


@pytest.fixture
def go(run, prompt):
    """A's blocks are on the disk alone (host memory holds one prompt); A comes back behind a long prefill."""

    def simulate(**prefetch):
        rows = [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C))]
        rows += [(30.0, 3900, 200, prompt(4, 3900)), (30.001, A, 1, prompt(1, A)), (30.002, 64, 1, prompt(6, 64))]
        tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "540 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]
        policies = {"offload": "write_through", "prefetch": {"name": "on_arrival", "into": "dram", **prefetch}}
        engine = {"max_num_batched_tokens": 512}
        return run(rows, blocks=400, tiers=tiers, links=DISK, policies=policies, engine=engine)

    return simulate


def late(result):
    """The request that comes back."""
    return result.frames["requests"].iloc[4]


def prefetched(result):
    return result.summary["prefetch"]["fetched_bytes"]


def test_the_time_out_is_a_base_and_a_time_for_every_1024_tokens(go):
    """1,600 tokens lie on the disk: 6.4 ms for every 1,024 of them are 10 ms."""
    one = go(stop="timeout", timeout="20 ms")
    both = go(stop="timeout", timeout="10 ms", timeout_per_ki_token="6.4 ms")
    alone = go(stop="timeout", timeout="0 s", timeout_per_ki_token="12.8 ms")
    assert late(both).admit_s == late(alone).admit_s == late(one).admit_s >= 30.001 + 0.020
    complete = go(stop="wait_complete")
    assert late(one).admit_s < late(complete).admit_s
    assert late(go(stop="timeout", timeout="1 ms", timeout_per_ki_token="10 s")).admit_s == late(complete).admit_s


@pytest.mark.parametrize("stop", ["best_effort", "wait_complete", "timeout"])
def test_fewer_tokens_than_the_threshold_are_not_fetched(go, hand, stop):
    plain = prefetched(go(stop=stop))
    assert plain == A * hand.token_bytes
    assert prefetched(go(stop=stop, threshold=A)) == plain
    none = go(stop=stop, threshold=A + 1)
    assert prefetched(none) == 0
    assert late(none).hit_ssd_tokens == (A - 1) // 16 * 16  # and is loaded when its turn comes


def test_what_is_near_already_does_not_count(run, prompt):
    """Half of the prompt is in host memory: the other half is below a threshold that the whole would reach."""
    rows = [(0, A, 1, prompt(1, A)), (10, 2 * A, 1, prompt(2, 2 * A)), (20, A, 1, prompt(1, A))]
    tiers = [{"name": "hbm"}, {"name": "dram", "capacity": "450 MiB"}, {"name": "ssd", "capacity": "10 GiB"}]

    def fetched(threshold):
        policies = {"prefetch": {"name": "on_arrival", "into": "dram", "threshold": threshold}}
        return prefetched(run(rows, blocks=210, tiers=tiers, links=DISK, policies=policies))

    plain = fetched(0)
    tokens = plain // 131_072
    assert 0 < tokens <= A
    assert fetched(int(tokens)) == plain
    assert fetched(int(tokens) + 1) == 0


def test_a_short_prefix_behind_hbm_is_computed_instead(run, prompt):
    rows = [(t, n, 1, prompt(f, n)) for t, f, n in ((0, 1, A), (10, 2, B), (20, 3, C), (30, 1, A))]
    hit = (A - 1) // 16 * 16

    def again(least):
        engine = {"loading": {"least_tokens": least}}
        return run(rows, blocks=256, dram="100 GiB", engine=engine).frames["requests"].iloc[3]

    assert again(0).hit_dram_tokens == again(hit).hit_dram_tokens == hit
    short = again(hit + 1)
    assert (short.hit_dram_tokens, short.computed_tokens, short.load_s) == (0, A, 0.0)


def test_what_hbm_has_of_a_short_prefix_is_still_used(run, prompt):
    """B takes the end of A out of HBM: its beginning is there, the rest is too little to load."""
    rows = [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, A, 1, prompt(1, A))]

    def again(least):
        engine = {"loading": {"least_tokens": least}}
        return run(rows, blocks=200, dram="100 GiB", engine=engine).frames["requests"].iloc[2]

    both, near = again(0), again(A)
    assert both.hit_dram_tokens > 0
    assert both.hit_hbm_tokens == near.hit_hbm_tokens > 0
    assert near.hit_dram_tokens == 0
    assert near.computed_tokens == A - near.hit_hbm_tokens


@pytest.mark.parametrize(
    ("layout", "copies_per_page"),
    [("block", 1), ("layer", 32), ("layer_kv", 2 * 32), ("token_kv", 2 * 32 * 64)],
)
def test_descriptors_of_a_page_by_layout(run, prompt, layout, copies_per_page):
    """Pages of 64 tokens: page-first is one piece for each token and layer, for keys and for values."""
    rows = [(0, 1024, 1, prompt(1, 1024))]
    engine = {"block_tokens": 64, "kv_layout": layout}
    for method in ("loop", "kernel"):
        links = {"pcie_d2h": {"method": method}}
        (store,) = run(rows, dram="10 GiB", engine=engine, links=links).frames["transfers"].itertuples()
        assert store.copies == 1024 // 64 * copies_per_page


def test_small_pieces_are_for_the_kernel(run, prompt):
    """One by one, the copies of small pieces are mostly set-up."""
    rows = [(t, n, 1, prompt(f, n)) for t, f, n in ((0, 1, A), (10, 2, B), (20, 3, C), (30, 1, A))]

    def load(method, layout):
        links = {"pcie_h2d": {"method": method}}
        result = run(rows, blocks=256, dram="100 GiB", links=links, engine={"kv_layout": layout})
        return result.frames["requests"].load_s[3]

    assert load("loop", "token_kv") > 5 * load("kernel", "token_kv")
    assert load("loop", "layer_kv") > load("kernel", "layer_kv")


@pytest.mark.parametrize("page", [16, 64, 256])
def test_a_page_is_one_object_in_the_store(run, prompt, page):
    tiers = [
        {"name": "hbm"},
        {"name": "dram", "capacity": "10 GiB"},
        {"name": "remote", "capacity": "10 GiB", "device": "rdma-400g"},
    ]
    result = run([(0, 2048, 1, prompt(1, 2048))], tiers=tiers, engine={"block_tokens": page})
    sent = result.frames["transfers"]
    size = page * 131_072
    longest = int(load_device("rdma-400g").measured_copies[1])  # longer copies are split
    copies = 2048 // page * max(1, size // longest)
    assert sent.loc[sent.link == "remote_write", "copies"].sum() == copies


def test_the_store_gets_what_host_memory_gets_whatever_the_write_policy_of_the_gpu(run, prompt):
    """HiCache's policy is about the way from the GPU to host memory; from there all goes on."""
    rows = [(10 * i, A, 1, prompt(i % 2, A)) for i in range(4)] + [(50, B, 1, prompt(7, B))]
    stored = {}
    for policy in ("write_through", "write_through_selective", "write_back"):
        tiers = [{"name": "hbm", "offload": policy}, {"name": "dram", "capacity": "10 GiB"}]
        tiers += [{"name": "ssd", "capacity": "10 GiB"}]
        result = run(rows, blocks=220, tiers=tiers, links=DISK)
        stored[policy] = [result.summary["tiers"][tier]["stored_bytes"] for tier in ("dram", "ssd")]
        assert stored[policy][0] == stored[policy][1]
    through, selective, back = (stored[policy][0] for policy in stored)
    assert through == (2 * A + B) * 131_072
    assert 0 < selective < through  # one-time prompts are never hit
    assert 0 < back < through  # what was not evicted was never written


def test_the_system_has_the_flags():
    def resolved(**options):
        document = {
            "schema": "kvsim-scenario/1",
            "trace": {"clients": {"clients": 2}},
            "model": "llama-3.1-8b",
            "hardware": {"profile": "h100-sxm-sglang"},
            "policies": {"name": "hicache", "dram": "100 GiB", "remote": "1 TiB", **options},
        }
        return Scenario.from_dict(document).resolved()

    plain = resolved()
    assert plain["policies"]["prefetch"]["threshold"] == 256
    assert "timeout" not in plain["policies"]["prefetch"]
    assert plain["engine"]["kv_layout"] == "block"
    timed = resolved(prefetch_policy="timeout", prefetch_threshold=512, prefetch_timeout_base="2 s")
    prefetch = timed["policies"]["prefetch"]
    assert (prefetch["stop"], prefetch["threshold"], prefetch["timeout"]) == ("timeout", 512, "2 s")
    assert prefetch["timeout_per_ki_token"] == "250 ms"
    assert resolved(mem_layout="page_first")["engine"]["kv_layout"] == "token_kv"
    direct = resolved(mem_layout="page_first_direct", io_backend="direct")
    assert (direct["engine"]["kv_layout"], direct["links"]["pcie_h2d"]["method"]) == ("layer_kv", "loop")
    with pytest.raises(InputError, match="mem_layout: goes with the kernel only"):
        resolved(mem_layout="page_first", io_backend="direct")
