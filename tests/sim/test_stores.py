"""Systems across sequences: what they set up, and the cases in which arithmetic says what must come out."""

from __future__ import annotations

import pytest

from hw_profiles.errors import InputError
from sim.run import simulate
from sim.scenario import Scenario

SIZE = {
    "lmcache": "dram",
    "vllm_cpu_offload": "dram",
    "hicache": "dram",
    "mooncake": "remote",
    "cached_attention": "dram",
}
"""The tier whose size decides, of each system."""
CLIENTS = {
    "clients": 6,
    "conversations": 1,
    "rounds": 3,
    "first_input_tokens": 6000,
    "input_tokens": 700,
    "output_tokens": 20,
    "think_time": "2 s",
    "block_tokens": 64,
}


def named(system, **options):
    """The system with room for everything, unless an option says otherwise."""
    sizes = {SIZE[system]: "1 TiB", **({"ssd": "1 TiB"} if system == "cached_attention" else {})}
    return {"name": system, **sizes, **options}


def scenario(policies, engine=None, **sections):
    """Six conversations of three turns whose first prompts alone fill HBM."""
    document = {
        "schema": "kvsim-scenario/1",
        "trace": {"clients": CLIENTS},
        "model": "llama-3.1-8b",
        "hardware": {"profile": "h100-sxm"},
        "engine": engine or {},
        "tiers": [{"name": "hbm", "capacity": "2 GiB"}],
        **sections,
    }
    return Scenario.from_dict(document if policies is None else {**document, "policies": policies})


@pytest.mark.parametrize("system", SIZE)
def test_what_a_system_sets_up_is_spelled_out_and_runs_the_same(system):
    made = scenario(named(system))
    resolved = made.resolved()
    assert "system" not in resolved["policies"]
    assert "name" not in resolved["policies"]
    assert SIZE[system] in [tier["name"] for tier in resolved["tiers"]]
    again = Scenario.from_dict(resolved)
    assert again.resolved() == resolved
    first, second = made.run().summary, again.run().summary
    assert first["ttft_ms"] == second["ttft_ms"]
    assert first["prefix"] == second["prefix"]


@pytest.mark.parametrize("system", SIZE)
def test_a_tier_of_the_scenario_is_completed(system):
    tiers = [{"name": "hbm", "capacity": "2 GiB"}, {"name": SIZE[system], "capacity": "1 TiB"}]
    more = [{"name": "ssd", "capacity": "1 TiB"}] if system == "cached_attention" else []
    assert scenario(system, tiers=[*tiers, *more]).resolved() == scenario(named(system)).resolved()


@pytest.mark.parametrize("system", SIZE)
def test_a_size_that_is_nowhere_is_asked_for(system):
    with pytest.raises(InputError, match=f"{system} needs the size of its tier {SIZE[system]}") as error:
        scenario(system)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("policies", "sections", "said"),
    [
        (named("lmcache"), {"engine": {"loading": {"mode": "blocking"}}}, "needs loading.mode: synchronous"),
        (named("lmcache"), {"tiers": [{"name": "hbm"}, {"name": "dram", "block_tokens": 64}]}, "block_tokens: 256"),
        (named("lmcache"), {"tiers": [{"name": "hbm"}, {"name": "dram", "capacity": "1 GiB"}]}, "another size"),
        (named("lmcache", chunks=3), {}, "lmcache has no such option"),
        (named("lmcache", chunk=0), {}, r"policies\.chunk: found 0"),
        (named("lmcache", layerwise=True, asynchronous=True), {}, "false with layerwise"),
        (named("vllm_cpu_offload", eviction="lfu"), {}, "lru, arc"),
        (named("hicache"), {"engine": {"kind": "vllm"}}, "needs kind: sglang"),
        (named("hicache", page_size=32), {"engine": {"block_tokens": 64}}, "needs block_tokens: 32"),
        (named("hicache", mem_layout="page_first"), {"engine": {"kv_layout": "block"}}, "needs kv_layout: token_kv"),
        (named("hicache", io_backend="direct"), {"links": {"pcie_h2d": {"method": "kernel"}}}, "needs pcie_h2d.method"),
        (
            named("hicache", write_policy="write_back"),
            {"tiers": [{"name": "hbm", "offload": "write_through"}]},
            "write_back in this tier",
        ),
        (named("mooncake"), {"tiers": [{"name": "hbm"}, {"name": "remote", "shared": "node"}]}, "shared: cluster"),
        ([named("lmcache"), named("mooncake")], {}, "both decide offload"),
        ([named("lmcache"), "kivi"], {"engine": {"prefix_caching": False}}, "tiers behind HBM"),
        ({"system": named("lmcache"), "offload": "none"}, {}, "has a policy of this family already"),
    ],
)
def test_contradictions_are_refused_with_the_reason(policies, sections, said):
    with pytest.raises(InputError, match=said):
        scenario(policies, **sections)


@pytest.mark.parametrize("system", SIZE)
def test_a_store_of_no_size_is_no_store(system):
    """The same timing to the bit as the engine with HBM alone, set up as the system sets it up."""
    empty = scenario(named(system, **{SIZE[system]: "0 B", **({"ssd": "0 B"} if system == "cached_attention" else {})}))
    kind = {"kind": "sglang", "block_tokens": 64} if system == "hicache" else {}
    alone = scenario(None, kind)
    ours, plain = empty.run().summary, alone.run().summary
    for key in ("ttft_ms", "tpot_ms", "duration_s", "throughput"):
        assert ours[key] == plain[key]
    assert plain["prefix"]["hit_ratio"] < 0.1


FREE = {
    link: {"bandwidth": "1000000 GB/s", "latency": "0 s"}
    for link in ("pcie_h2d", "pcie_d2h", "remote_read", "remote_write", "ssd_read", "ssd_write")
}


@pytest.mark.parametrize("system", SIZE)
def test_with_room_and_links_without_end_all_that_was_seen_is_reused_for_nothing(system):
    """As fast as an HBM that holds everything: each prompt computes what no prompt or answer had before."""
    part = {"hicache": {"io_backend": "direct"}}.get(system, {})
    links = {name: value for name, value in FREE.items() if not name.startswith(("remote", "ssd"))}
    if system in ("mooncake", "cached_attention"):
        links |= {name: FREE[name] for name in FREE if name.startswith("remote" if system == "mooncake" else "ssd")}
    caps = {"pcie_joint": {"bandwidth": "1000000 GB/s"}}
    ours = scenario(named(system, **part), links={**links, **caps}).run().summary
    ideal = (
        scenario(
            None,
            {"kind": "sglang", "block_tokens": 64} if system == "hicache" else {},
            tiers=[{"name": "hbm", "capacity": "60 GiB"}],
        )
        .run()
        .summary
    )
    grain = {"lmcache": 256, "mooncake": 512}.get(system, 64)
    lost = (ideal["prefix"]["hit_ratio"] - ours["prefix"]["hit_ratio"]) * ideal["prefix"]["input_tokens"]
    turns = CLIENTS["clients"] * (CLIENTS["rounds"] - 1)
    assert 0 <= lost <= turns * (grain + 64 + CLIENTS["output_tokens"])  # the part of a block at the end, and answers
    # what is lost is computed: a block more of each prompt, at less than the time of a prompt of 1,024 tokens
    assert ours["ttft_ms"]["mean"] == pytest.approx(ideal["ttft_ms"]["mean"], rel=0.25)


@pytest.mark.parametrize("chunk", [64, 256, 512])
def test_whole_chunks_are_found_and_their_bytes_are_what_moves(chunk):
    """A second prompt of 6,000 old tokens and 700 new ones finds floor(6,000 / chunk) chunks, and loads their bytes."""
    trace = {"clients": {**CLIENTS, "rounds": 2, "output_tokens": 1}}
    summary = scenario(named("lmcache", chunk=chunk), trace=trace).run().summary
    whole = 6000 // chunk * chunk
    found = summary["prefix"]["hit_tokens"]["dram"] + summary["prefix"]["hit_tokens"]["hbm"]
    token_bytes = summary["hardware"]["kv_bytes_per_token"]
    behind = summary["prefix"]["hit_tokens"]["dram"]
    assert behind > 0
    assert found >= CLIENTS["clients"] * whole - CLIENTS["clients"] * 16
    assert summary["links"]["pcie_h2d"]["bytes"] == behind * token_bytes
    assert behind % chunk == 0 or summary["prefix"]["hit_tokens"]["hbm"] > 0


@pytest.mark.parametrize("system", SIZE)
def test_what_is_reused_behind_hbm_is_what_crosses_the_link(system):
    """Bytes toward the GPU = tokens reused from the store x KV bytes of a token, and no more is stored than came by."""
    summary = scenario(named(system)).run().summary
    tier, link = SIZE[system], "remote_read" if system == "mooncake" else "pcie_h2d"
    token_bytes = summary["hardware"]["kv_bytes_per_token"]
    found = summary["prefix"]["hit_tokens"][tier]
    grain = {"lmcache": 256, "mooncake": 512, "hicache": 64}.get(system, 16)
    loads = summary["requests"]["finished"]
    assert found > 0
    assert found * token_bytes <= summary["links"][link]["bytes"] <= (found + grain * loads) * token_bytes
    said = summary["prefix"]["input_tokens"] + CLIENTS["output_tokens"] * loads
    assert 0 < summary["tiers"][tier]["stored_bytes"] <= said * token_bytes


STORE = {"clients": {**CLIENTS, "clients": 3, "rounds": 2, "think_time": "20 s"}}
"""Turns so far apart that nobody queues and every copy has ended."""


def behind(**options):
    """HiCache whose host memory has room for one of three conversations, over a store for all of them."""
    policies = {"name": "hicache", "dram": "1 GiB", "remote": "1 TiB", "prefetch_policy": "wait_complete", **options}
    return scenario(policies, trace=STORE, tiers=[{"name": "hbm", "capacity": "1 GiB"}]).run().summary


def test_what_hicache_does_not_fetch_from_its_store_is_computed():
    """A request uses HBM, host memory and what its fetch brought; the store has no other way to it."""
    fetched, below = behind(), behind(prefetch_threshold=7000)
    assert fetched["prefix"]["hit_tokens"]["dram"] == 3 * ((6000 + 20 - 1) // 64 * 64)
    assert sum(below["prefix"]["hit_tokens"].values()) < 0.4 * sum(fetched["prefix"]["hit_tokens"].values())
    assert below["links"]["remote_read"]["bytes"] == below["prefix"]["hit_tokens"]["remote"] == 0
    assert below["ttft_ms"]["mean"] > fetched["ttft_ms"]["mean"]


def test_what_has_come_to_host_memory_goes_on_to_the_store_with_every_write_policy():
    """`write_policy` is of the GPU's memory alone: SGLang backs a node up when its copy to the host has ended."""
    for policy in ("write_through", "write_back"):
        tiers = behind(write_policy=policy, dram="1 TiB")["tiers"]
        assert tiers["remote"]["stored_bytes"] == tiers["dram"]["stored_bytes"] > 0


def test_only_prompts_are_stored_unless_answers_are_asked_for():
    """Each turn finds the answer before it in the store, or computes it again and stores it then."""
    trace = {"clients": {**CLIENTS, "output_tokens": 320}}
    with_them, without = (
        scenario(named("lmcache", chunk=64, answers=answers), trace=trace).run().summary for answers in (True, False)
    )
    turns = CLIENTS["clients"] * (CLIENTS["rounds"] - 1)
    found = [sum(summary["prefix"]["hit_tokens"].values()) for summary in (with_them, without)]
    assert found[0] - found[1] == pytest.approx(320 * turns, rel=0.2)
    stored = [summary["tiers"]["dram"]["stored_bytes"] for summary in (with_them, without)]
    assert stored[1] == pytest.approx(stored[0], rel=0.02)


def test_what_a_request_hits_in_hbm_is_stored_if_it_is_not_yet():
    """With a second turn that finds its prefix in HBM, an answer is stored only because it is hit there."""
    tiers = [{"name": "hbm", "capacity": "60 GiB"}, {"name": "dram", "capacity": "1 TiB"}]
    trace = {"clients": {**CLIENTS, "output_tokens": 320}}
    stored = {}
    for hits in (False, True):
        offload = {"offload": {"name": "write_through", "hits": hits}}
        summary = scenario(offload, {"offload_answers": False}, tiers=tiers, trace=trace).run().summary
        stored[hits] = summary["tiers"]["dram"]["stored_bytes"] / summary["hardware"]["kv_bytes_per_token"]
    assert stored[True] - stored[False] == pytest.approx(320 * CLIENTS["clients"] * 2, rel=0.25)


@pytest.mark.parametrize("rate", ["50 GB/s", "1 GB/s", "0.1 GB/s"])
def test_a_synchronous_load_comes_before_its_step(rate):
    """Alone: the load, then the step; beside others they wait for the load as well."""
    trace = {"clients": {**CLIENTS, "clients": 1, "rounds": 2, "output_tokens": 1}}
    ttft, moved = {}, {}
    for mode in ("synchronous", "layerwise", "blocking"):
        summary = (
            scenario(
                None,
                {"loading": {"mode": mode}, "num_gpu_blocks": 460},
                trace=trace,
                tiers=[{"name": "hbm"}, {"name": "dram", "capacity": "1 TiB"}],
                links={"pcie_h2d": {"bandwidth": rate, "latency": "0 s"}},
            )
            .run()
            .summary
        )
        ttft[mode], moved[mode] = summary["ttft_ms"]["max"], summary["links"]["pcie_h2d"]["bytes"]
    assert ttft["layerwise"] <= ttft["synchronous"]
    assert ttft["synchronous"] == pytest.approx(ttft["blocking"], rel=1e-3)


def test_copies_of_pool_blocks_divide_it():
    (tier,) = [t for t in scenario(named("mooncake", replicas=2)).spec.tiers if t.name == "remote"]
    assert tier.capacity == 2**39
    with pytest.raises(InputError, match="replicas"):
        scenario({"name": "mooncake", "replicas": 2})


def test_a_pool_with_copies_in_each_node_reads_them_there():
    sections = {"hardware": {"profile": "h100-sxm", "replicas": 4, "gpus_per_node": 2}, "routing": "round_robin"}
    plain = scenario(named("mooncake"), **sections).run().summary
    hot = scenario(named("mooncake", dram="1 TiB"), **sections).run().summary
    assert hot["prefix"]["hit_ratio"] == pytest.approx(plain["prefix"]["hit_ratio"], abs=0.02)
    assert hot["prefix"]["hit_tokens"]["dram"] > 0
    assert hot["links"]["remote_read"]["bytes"] < plain["links"]["remote_read"]["bytes"]


def test_copies_in_each_node_are_the_same_by_option_and_by_tier():
    tiers = [{"name": "hbm", "capacity": "2 GiB"}, {"name": "dram", "capacity": "1 TiB"}]
    by_tier, by_option = scenario(named("mooncake"), tiers=tiers), scenario(named("mooncake", dram="1 TiB"))
    assert by_tier.resolved() == by_option.resolved()
    assert not by_tier.spec.tiers[-1].direct
    assert scenario(named("mooncake")).spec.tiers[-1].direct


CROWD = {
    "trace": {"clients": {**CLIENTS, "clients": 30, "think_time": "20 s", "first_input_tokens": 3000, "rounds": 4}},
    "engine": {"max_num_seqs": 2, "max_num_batched_tokens": 2048},
}
"""Thirty conversations of which two run at a time, so that many wait."""


def crowd(eviction, **options):
    policies = named("cached_attention", eviction=eviction, dram="6 GiB", **options)
    slow = {"ssd_read": {"bandwidth": "3 GB/s"}}
    return scenario(policies, links=slow, **CROWD).run().summary


def test_what_the_queue_asks_for_stays_near():
    """With room for half of the conversations, knowing who comes next finds more in host memory than recency does."""
    near = {
        eviction: crowd(eviction, prefetch="none")["prefix"]["hit_tokens"]["dram"]
        for eviction in ("lru", "queue_aware")
    }
    assert near["queue_aware"] > 1.2 * near["lru"]


def test_looking_ahead_turns_reads_of_the_disk_into_reads_of_memory():
    plain, ahead = crowd("queue_aware", prefetch="none"), crowd("queue_aware")
    assert ahead["prefix"]["hit_tokens"]["ssd"] < 0.5 * plain["prefix"]["hit_tokens"]["ssd"]
    assert ahead["prefix"]["hit_ratio"] == pytest.approx(plain["prefix"]["hit_ratio"], rel=0.05)
    assert ahead["ttft_ms"]["mean"] <= plain["ttft_ms"]["mean"]


@pytest.mark.parametrize("where", ["hbm", "dram"])
def test_steps_one_by_one_give_the_same_with_a_queue_that_matters(where):
    tiers = [{"name": "hbm", "capacity": "2 GiB"}, {"name": "dram", "capacity": "3 GiB"}]
    tiers[where == "dram"]["eviction"] = "queue_aware"
    made = scenario(None, CROWD["engine"], trace=CROWD["trace"], tiers=tiers)
    strides, singles = simulate(made, check=True), simulate(made, check=True, single_step=True)
    assert strides.tables["requests"].equals(singles.tables["requests"])
