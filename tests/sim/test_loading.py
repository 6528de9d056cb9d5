"""How a cached prefix comes to HBM: waiting for all of it, layer by layer, or only as far as that pays."""

import pytest

from hw_profiles.cost_models import LinkModel
from sim.clock import Clock
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.network import Network, Resource
from sim.hierarchy.route import Hop, alone_s
from sim.hierarchy.transfer import Transfer
from sim.recorder import Recorder

A, B, C = 1600, 2000, 4000
BLOCKS = 256


def hit(tokens):
    return (tokens - 1) // 16 * 16


@pytest.fixture
def again(prompt):
    """A and B are computed and stored, C drives both out of HBM, and A comes back with 512 tokens that are new."""
    ids = [*prompt(1, 1536), 77]
    return [(0, A, 1, prompt(1, A)), (10, B, 1, prompt(2, B)), (20, C, 1, prompt(3, C)), (30, 2048, 1, ids)]


LOADED = 1536


@pytest.mark.parametrize("rate", ["50 GB/s", "1 GB/s", "0.1 GB/s"])
def test_layers_are_loaded_while_earlier_ones_are_computed(run, hand, again, quiet_profile, rate):
    """Equal layers: done after the compute, or one layer's compute after the last load, whichever is later."""
    result = run(
        again,
        blocks=BLOCKS,
        dram="100 GiB",
        engine={"loading": {"mode": "layerwise"}},
        links={"pcie_h2d": {"bandwidth": rate, "latency": "0 s"}},
        hardware={"profile": quiet_profile},
    )
    row = result.frames["requests"].iloc[3]
    assert row.hit_dram_tokens == LOADED
    load = LOADED * hand.token_bytes / (float(rate.split()[0]) * 1e9)
    step = hand.mixed_step([(512, LOADED)], sampled=1)
    assert row.ttft_s == pytest.approx(max(step, load + step / hand.layers), rel=1e-9)
    assert result.summary["time"]["layer_wait_s"] == pytest.approx(max(0, load + step / hand.layers - step), abs=1e-12)


def test_layer_wise_loading_is_never_later_than_blocking_alone(run, again):
    ttft = {}
    for mode in ("blocking", "layerwise"):
        result = run(again, blocks=BLOCKS, dram="100 GiB", engine={"loading": {"mode": mode}})
        ttft[mode] = result.frames["requests"].ttft_s[3]
    assert ttft["layerwise"] < ttft["blocking"]


def test_a_batch_waits_for_the_layers_of_one(run, hand, again, prompt):
    """Layer-wise loading holds up those who run in the same step; blocking holds up only its own request."""
    rows = [*again, (30.0, 100, 1, prompt(5, 100))]
    slow = {"links": {"pcie_h2d": {"bandwidth": "0.5 GB/s"}}, "blocks": BLOCKS, "dram": "100 GiB"}
    other = {
        mode: run(rows, engine={"loading": {"mode": mode}}, **slow).frames["requests"].ttft_s[4]
        for mode in ("blocking", "layerwise")
    }
    assert other["layerwise"] > 10 * other["blocking"]


def test_what_is_faster_to_compute_is_not_loaded(run, again):
    def ttft(rate, choose):
        result = run(
            again,
            blocks=BLOCKS,
            dram="100 GiB",
            engine={"loading": {"choose": choose}},
            links={"pcie_h2d": {"bandwidth": rate}},
        )
        row = result.frames["requests"].iloc[3]
        return row.ttft_s, row.hit_dram_tokens

    for rate in ("40 GB/s", "8 GB/s", "4 GB/s", "1 GB/s"):
        by_cost, loaded = ttft(rate, "by_cost")
        assert by_cost <= ttft(rate, "always")[0]
        assert loaded in (0, LOADED)
    assert ttft("40 GB/s", "by_cost")[1] == LOADED
    assert ttft("1 GB/s", "by_cost")[1] == 0


@pytest.mark.parametrize("shared", ["pcie_joint", "host_root", "dram"])
def test_a_price_minds_the_bandwidths_that_links_share(run, again, shared):
    """A link of 40 GB/s behind a shared 1 GB/s is one of 1 GB/s: not worth loading over, nor storing for."""
    links = {"pcie_h2d": {"bandwidth": "40 GB/s"}, "pcie_d2h": {"bandwidth": "40 GB/s"}}

    def ttft(rate, choose, offload="write_through"):
        found = run(
            again,
            blocks=BLOCKS,
            dram="100 GiB",
            offload=offload,
            engine={"loading": {"choose": choose}},
            links={**links, shared: {"bandwidth": rate}},
        )
        row = found.frames["requests"].iloc[3]
        return row.ttft_s, row.hit_dram_tokens, found.summary["tiers"]["dram"]["stored_bytes"]

    assert ttft("80 GB/s", "by_cost")[1] == LOADED
    slow = ttft("1 GB/s", "always")
    assert slow[1] == LOADED
    chosen = ttft("1 GB/s", "by_cost")
    assert chosen[1] == 0
    assert chosen[0] < slow[0]
    assert ttft("80 GB/s", "always", "by_cost")[2] > 0
    assert ttft("1 GB/s", "always", "by_cost")[2] == 0


def test_what_two_links_of_a_way_share_carries_the_bytes_twice():
    """10 GB/s of host memory, into which a drive writes and from which the GPU reads at the same time."""
    clock, memory = Clock(), Resource("dram", 10e9)
    network = Network(clock)

    def hop(src, dst):
        engine = CopyEngine(src, 0, LinkModel(0.0, 20e9), (), network, clock, Recorder())
        return Hop(engine, src, dst, 10**9, (memory,))

    assert alone_s((hop("ssd", "host"),), 10**9) == pytest.approx(0.1)
    assert alone_s((hop("ssd", "host"), hop("host", "hbm")), 10**9) == pytest.approx(0.2)


def test_what_limits_two_directions_together_counts_while_the_other_is_in_use():
    clock, joint = Clock(), Resource("ssd_joint", 1e9, least=2)
    network = Network(clock)
    read, write = (CopyEngine(name, 0, LinkModel(0.0, 4e9), (joint,), network, clock, Recorder()) for name in "rw")
    way = (Hop(read, "ssd", "host", 10**9),)
    assert alone_s(way, 10**9) == pytest.approx(0.25)
    write.submit(Transfer("host", "ssd", 10**9, 1, "store"), lambda: None)
    assert alone_s(way, 10**9) == pytest.approx(1.0)
    clock.drain(None, lambda: None)
    assert alone_s(way, 10**9) == pytest.approx(0.25)


@pytest.mark.parametrize("loading", [{"mode": "layerwise"}, {"mode": "layerwise", "choose": "by_cost"}])
def test_strides_equal_single_steps(run, same_requests, prompt, loading):
    rows = [(0.05 * i, 700 + 130 * (i % 7), 1 + 9 * (i % 5), prompt(i % 7, 700 + 130 * (i % 7))) for i in range(40)]
    keywords = {"blocks": BLOCKS, "dram": "700 MiB", "engine": {"loading": loading}}
    strides, steps = run(rows, **keywords), run(rows, single_step=True, **keywords)
    same_requests(strides, steps)
