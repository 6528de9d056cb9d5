"""Copies slow the steps during which they run, by exactly the closed form, and nothing else."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hw_profiles.cost_models import GemmModel
from hw_profiles.loader import load_profile
from hw_profiles.models import load_model
from sim.clock import Clock
from sim.cluster import Cluster
from sim.cost.bound import Bound, gemm_bound
from sim.cost.interference import Interference, InterferenceModel, direction_of, watch
from sim.cost.step import StepCost
from sim.hierarchy.transfer import Transfer
from sim.inputs import load_inputs
from sim.tables import columns_table

H100 = load_profile(Path(__file__).parent / "closed_form.yaml")
MODEL = InterferenceModel({"h2d": 1.0, "d2h": 2.0}, {"h2d": 3.0, "d2h": 4.0}, hbm_bandwidth=1e12, sms=100)


class FakeLink:
    """A link that has moved and served what the test says."""

    def __init__(self, name="pcie_d2h", sms=0):
        self.name, self.model, self.started = name, GemmModel(0, 1, 1, 1), None
        self.busy, self.bytes, self.seconds = False, 0.0, 0.0
        if sms:
            self.model = type("Kernel", (), {"sms": sms})()

    def moved(self, now):
        return self.bytes

    def served(self, now):
        return self.seconds


def parts(bound):
    return bound.hbm_s, bound.compute_s


# ---- what a step is bound by


@pytest.mark.parametrize("p", [1.0, 1.6, 3.0, 8.0])
@pytest.mark.parametrize("flops", [1e6, 1e12, 4e12, 1e15])
def test_shares_of_a_product_are_how_its_time_changes(p, flops):
    model, nbytes, step = GemmModel(4e-6, 2e12, 8e14, p), 1e10, 1e-6
    bound = gemm_bound(model, nbytes, flops)
    assert bound.hbm_s + bound.compute_s == pytest.approx(model.seconds(nbytes, flops) - 4e-6, rel=1e-12)
    for share, slower in (
        (bound.hbm_s, replace(model, bandwidth=2e12 / (1 + step))),
        (bound.compute_s, replace(model, flops=8e14 / (1 + step))),
    ):
        change = (slower.seconds(nbytes, flops) - model.seconds(nbytes, flops)) / step
        assert change == pytest.approx(share, rel=1e-3, abs=1e-9 * model.seconds(nbytes, flops))


@pytest.mark.parametrize("p", [56.8, 400.0])
def test_shares_of_a_short_product_with_a_sharp_corner(p):
    """A product of 2 us: its times to the power p are below the least number."""
    model = GemmModel(4e-6, 2e12, 8e14, p)
    assert parts(gemm_bound(model, 4e6, 8e8)) == pytest.approx((2e-6, 0.0), rel=1e-9)
    assert parts(gemm_bound(model, 2e6, 1.6e9)) == pytest.approx((0.0, 2e-6), rel=1e-9)
    even = gemm_bound(model, 4e6, 1.6e9)
    assert parts(even) == pytest.approx((2e-6 * 2 ** (1 / p) / 2,) * 2, rel=1e-9)
    assert parts(gemm_bound(model, 0.0, 0.0)) == (0.0, 0.0)


def test_bound_of_a_decode_step_by_hand(hand):
    """Products by p-norm, elementwise traffic and KV are HBM time; fixed times of kernels are in neither part."""
    seqs, context = 32, 100_000
    bandwidth, flops, p = hand.group("kernels.gemm_bf16", "bandwidth", "flops", "p")
    shapes = [
        (hand.q + 2 * hand.kv, hand.hidden),
        (hand.hidden, hand.q),
        (2 * hand.inter, hand.hidden),
        (hand.hidden, hand.inter),
    ] * hand.layers + [(hand.vocab, hand.hidden)]
    hbm = compute = 0.0
    for n, k in shapes:
        m, c = 2 * (seqs * k + k * n + seqs * n) / bandwidth, 2 * seqs * n * k / flops
        time = (m**p + c**p) ** (1 / p)
        hbm += time * m**p / (m**p + c**p)
        compute += time * c**p / (m**p + c**p)
    moved = 2 * seqs * (8 * hand.hidden + 2 * (hand.q + hand.kv) + 4 * hand.kv + 3 * hand.inter)
    hbm += hand.layers * moved / hand.value("tiers.hbm.read")
    hbm += seqs * hand.vocab * 6 / hand.value("tiers.hbm.read")  # sampling
    hbm += context * hand.token_bytes / hand.value("kernels.decode_attn.bandwidth")
    bound = StepCost(load_model("llama-3.1-8b"), H100).bound(seqs, seqs, seqs, context, [])
    assert parts(bound) == pytest.approx((hbm, compute), rel=1e-9)
    assert hbm > 50 * compute  # decoding is bound by memory


def test_bound_of_prefill_and_of_short_contexts(hand):
    cost = StepCost(load_model("llama-3.1-8b"), H100)
    prefill = cost.bound(4096, 1, 0, 0, [(4096, 1000)])
    assert prefill.compute_s > 5 * prefill.hbm_s
    whole = cost.linear(4096, 1) + cost.prefill([(4096, 1000)])
    assert 0.9 * whole < prefill.compute_s + prefill.hbm_s < whole
    # attention over a few tokens takes the floor, whatever the memory does
    floored = StepCost(load_model("llama-3.1-8b"), H100.override("kernels.decode_attn.t0", 0.0))
    few, more, none = floored.bound(1, 1, 1, 2, []), floored.bound(1, 1, 1, 500, []), cost.bound(1, 1, 0, 0, [])
    assert parts(few) == parts(more) == parts(none)


# ---- the closed form


def test_extra_time_by_numbers():
    """10 ms, 6 for HBM, 3 for arithmetic: 1 GB at factor 2 is 0.2 of its 10 GB; 25 of 100 SMs for 4 ms are 0.1."""
    bound = Bound(6e-3, 3e-3)
    assert MODEL.extra_s(10e-3, bound, weighted_bytes=2e9, sm_seconds=0) == pytest.approx(1.2e-3, rel=1e-12)
    assert MODEL.extra_s(10e-3, bound, weighted_bytes=0, sm_seconds=25 * 4e-3) == pytest.approx(0.3e-3, rel=1e-12)
    both = MODEL.extra_s(10e-3, bound, weighted_bytes=2e9, sm_seconds=25 * 4e-3)
    assert both == pytest.approx(1.5e-3, rel=1e-12)
    assert MODEL.extra_s(10e-3, bound, 0, 200 * 10e-3) == pytest.approx(3e-3)  # there are no more SMs than there are


def test_both_directions_and_methods_add_up():
    links = [FakeLink("pcie_h2d"), FakeLink("pcie_d2h"), FakeLink("pcie_h2d", sms=20), FakeLink("pcie_d2h", sms=10)]
    found = watch(MODEL, links, lambda: None)
    assert found is not None
    links[0].busy = True
    links[0].bytes = 5e9  # of an earlier step
    assert found.begin(1.0)
    for link in links:
        link.bytes += 1e8
        link.seconds += 2e-3
    assert found.moved(1.01)
    extra = found.extra_s(10e-3, Bound(6e-3, 3e-3))
    weighted, sm_seconds = (1 + 2 + 3 + 4) * 1e8, 20 * 2e-3 + 10 * 2e-3
    assert extra == pytest.approx(6e-3 * weighted / 1e12 / 10e-3 + 3e-3 * sm_seconds / 100 / 10e-3, rel=1e-12)


def test_a_copy_kernel_costs_more_than_a_copy_engine():
    shipped = InterferenceModel.of(H100)
    extra = []
    for sms in (0, 12):
        link = FakeLink("pcie_d2h", sms)
        found = watch(shipped, [link], lambda: None)
        found.started(0.0)
        link.bytes, link.seconds = 4e8, 8e-3
        assert found.moved(0.01)
        extra.append(found.extra_s(0.01, Bound(8e-3, 1e-3)))
    assert extra[0] == pytest.approx(8e-3 * 1.5 * 4e8 / 3e12 / 0.01, rel=1e-12)
    assert extra[1] == pytest.approx(8e-3 * 2.0 * 4e8 / 3e12 / 0.01 + 1e-3 * 12 / 132 * 0.8, rel=1e-12)


def test_a_step_begins_anew():
    link = FakeLink()
    found = Interference(MODEL, [(link, 2.0, 0)])
    assert not found.begin(0.0)
    assert found.quiet
    found.started(0.1)
    link.bytes = 1e9
    assert found.moved(1.0)
    assert found.extra_s(1.0, Bound(1.0, 0.0)) == pytest.approx(2e-3)
    assert not found.begin(1.0)
    assert not found.moved(2.0)


def test_what_costs_nothing_is_not_watched(quiet_profile):
    assert InterferenceModel.of(load_profile(quiet_profile)) is None
    assert watch(None, [FakeLink()], lambda: None) is None
    free = replace(MODEL, engine={"h2d": 0.0, "d2h": 0.0})
    link = FakeLink()
    assert watch(free, [link], lambda: None) is None
    assert link.started is None
    assert watch(free, [link, FakeLink(sms=4)], lambda: None) is not None
    assert direction_of("pcie_h2d") == direction_of("cxl_read") == "h2d"
    assert direction_of("pcie_d2h") == direction_of("cxl_write") == "d2h"


def test_a_clock_skips_only_what_is_empty():
    clock, seen = Clock(), []

    def go():
        seen.append((clock.skip(3.0), clock.now))
        seen.append((clock.skip(2.0), clock.now))  # not back
        seen.append((clock.skip(5.0), clock.now))  # something happens then

    clock.at(1.0, go)
    clock.at(5.0, lambda: seen.append((None, clock.now)))
    clock.drain(None, lambda: None)
    assert seen == [(True, 3.0), (False, 3.0), (False, 3.0), (None, 5.0)]


# ---- in the engine


@pytest.fixture
def profile_with(hand, tmp_path):
    """Writes h100-sxm with other factors; returns its path."""

    def write(**factors):
        raw = yaml.safe_load(hand.profile.read_text())
        for key, value in factors.items():
            raw["interference"][key] |= {"v": value, "lo": 0, "hi": max(value, 10)}
        path = tmp_path / f"{'-'.join(map(str, factors.values()))}.yaml"
        path.write_text(yaml.safe_dump(raw))
        return {"profile": str(path)}

    return write


def test_decode_steps_beside_a_store_by_hand(run, hand, prompt):
    """A prompt is stored while its output is decoded: 1.5 x the bytes of each step over the HBM's rate."""
    tokens = 6000
    result = run([(0, tokens, 40, prompt(0, tokens))], dram="100 GiB", single_step=True)
    (store,) = result.frames["transfers"].itertuples()
    prefill, *steps = result.frames["steps"].itertuples()
    cost = StepCost(load_model("llama-3.1-8b"), H100)
    rate, now, slowed = store.bytes / (store.end_s - store.start_s), prefill.end_s, []
    assert (store.start_s, prefill.interference_s) == (now, 0.0)
    for step in steps:
        assert step.start_s == pytest.approx(now, rel=1e-12)
        if step.interference_s:
            planned = hand.decode_step(1, step.context_tokens)
            moved = rate * max(0.0, min(store.end_s, now + planned) - now)
            bound = cost.bound(1, 1, 1, step.context_tokens, [])
            assert step.interference_s == pytest.approx(1.5 * moved / 3e12 * bound.hbm_s / planned, rel=1e-9)
            now += planned + step.interference_s
            slowed.append(step.count)
        else:
            now += sum(hand.decode_step(1, step.context_tokens + i) for i in range(step.count))
        assert step.end_s == pytest.approx(now, rel=1e-12)
    assert slowed == [1] * len(slowed)
    assert len(slowed) == 1 + int((store.end_s - prefill.end_s) // hand.decode_step(1, tokens + 1))
    assert result.summary["time"]["interference_s"] == pytest.approx(sum(s.interference_s for s in steps), rel=1e-12)


def test_a_copy_that_starts_inside_a_stride_slows_its_steps(scenario, hand, prompt):
    """Ten milliseconds of copying begin in the middle of a long stride: the steps meanwhile are slower, no other."""
    spec = scenario([(0, 4000, 400, prompt(0, 4000))], dram="100 GiB", offload="none")
    clusters = {single: Cluster(spec, load_inputs(spec), single_step=single) for single in (False, True)}
    for cluster in clusters.values():
        (link,) = (link for link in cluster.links if link.name == "pcie_h2d")
        size = round(10e-3 * link.model.beta)
        copy = Transfer("dram", "hbm", size, 1, "load")
        cluster.clock.at(1.0, partial(link.submit, copy, lambda: None))
        cluster.clock.drain(None, lambda: None)
    steps = columns_table(clusters[True].recorder.steps).to_pandas()
    slow = list(steps[steps.interference_s > 0].itertuples())
    assert len(slow) in (2, 3)
    context = slow[0].context_tokens
    planned = [hand.decode_step(1, context + i) for i in range(len(slow))]
    now = slow[0].start_s
    assert now < 1.0 < slow[0].end_s
    seconds, total = link.service_s(copy), 0.0
    cost = StepCost(load_model("llama-3.1-8b"), H100)
    for i, step in enumerate(slow):
        moved = size * (min(now + planned[i], 1.0 + seconds) - max(now, 1.0)) / seconds
        share = cost.bound(1, 1, 1, context + i, []).hbm_s / planned[i]
        assert step.interference_s == pytest.approx(1.5 * moved / 3e12 * share, rel=1e-6)
        now = step.end_s
        total += moved
    assert 0.97 * size < total < size  # what moves while a step takes longer is not charged
    rest = sum(hand.decode_step(1, context + i) for i in range(len(slow), 4400 - context))
    assert clusters[True].served.column("finish_s")[0] == pytest.approx(now + rest, rel=1e-9)
    # One stride has these steps and all others, and ends when the last of them does.
    ends = [cluster.served.column("finish_s")[0] for cluster in clusters.values()]
    assert ends[0] == ends[1]
    _prefill, stride = columns_table(clusters[False].recorder.steps).to_pandas().itertuples()
    assert stride.count == 399
    assert stride.interference_s == pytest.approx(sum(step.interference_s for step in slow), rel=1e-12)


CHAT = {
    "requests": 80,
    "rate": 10,
    "turns": 3,
    "think_time": "3 s",
    "first_tokens": {"mean": 2000, "sigma": 1},
    "output_tokens": {"mean": 60, "sigma": 0.8},
}


@pytest.mark.parametrize("offload", ["write_through", "write_back"])
def test_strides_are_exactly_single_steps(run, same_requests, offload):
    keywords = {"trace": {"generate": CHAT}, "blocks": 1500, "dram": "8 GiB", "offload": offload}
    keywords["hardware"] = {"profile": "h100-sxm", "replicas": 2}
    strides, singles = run(**keywords), run(**keywords, single_step=True)
    same_requests(strides, singles)
    for name in ("transfers", "samples"):
        pd.testing.assert_frame_equal(strides.frames[name], singles.frames[name], check_exact=True)
    slowed = [r.frames["steps"].query("interference_s > 0") for r in (strides, singles)]
    assert len(slowed[0]) > 10
    assert (slowed[0]["count"] > 1).any()
    assert set(slowed[0].end_s) <= set(singles.frames["steps"].end_s)
    waits = [r.summary["time"]["interference_s"] for r in (strides, singles)]
    assert waits[0] == pytest.approx(waits[1], rel=1e-12)
    assert len(strides.frames["steps"]) < len(singles.frames["steps"])


def test_factors_of_zero_are_as_none_at_all(run, profile_with, quiet_profile):
    keywords = {"trace": {"generate": CHAT}, "blocks": 1500, "dram": "8 GiB"}
    zero = run(**keywords, hardware=profile_with(h2d=0.0, d2h=0.0))
    none = run(**keywords, hardware={"profile": quiet_profile})
    for name in ("requests", "steps", "transfers", "samples"):
        pd.testing.assert_frame_equal(zero.frames[name], none.frames[name], check_exact=True)
    assert (none.frames["steps"].interference_s == 0).all()
    assert none.summary["time"]["interference_s"] == 0


@pytest.mark.parametrize("tiers", [{}, {"dram": "64 GiB", "offload": "none"}])
def test_without_traffic_nothing_changes(run, quiet_profile, tiers):
    keywords = {"trace": {"generate": CHAT}, "blocks": 1500, **tiers}
    default, quiet = run(**keywords), run(**keywords, hardware={"profile": quiet_profile})
    for name in ("requests", "steps", "transfers", "samples"):
        pd.testing.assert_frame_equal(default.frames[name], quiet.frames[name], check_exact=True)


def test_more_traffic_slows_decoding_more(run, prompt):
    """Two requests decode; the blocks of 0, 1, 2 and 4 others are stored meanwhile."""
    times = []
    for others in (0, 1, 2, 4):
        rows = [(0, 160, 300, prompt(1, 160)), (0, 160, 300, prompt(2, 160))]
        rows += [(0.5 + 0.2 * i, 3000, 1, prompt(10 + i, 3000)) for i in range(others)]
        result = run(rows, dram="100 GiB")
        steps = result.frames["steps"]
        times.append(float(steps.interference_s[steps.prefill_seqs == 0].sum()))
    assert times[0] < times[1] < times[2] < times[3]


@pytest.mark.parametrize("offload", ["write_through", "write_back"])
def test_a_copy_kernel_slows_a_run_more(run, offload):
    """Of the rates of a copy kernel, but once as a copy engine: the kernel's factors and SMs make the difference."""
    keywords = {"trace": {"generate": CHAT}, "blocks": 1500, "dram": "8 GiB", "offload": offload}
    kernel = {name: {"method": "kernel"} for name in ("pcie_h2d", "pcie_d2h")}
    spent = [run(**keywords, links=links).summary["time"]["interference_s"] for links in ({}, kernel)]
    assert spent[1] > 1.5 * spent[0] > 0


def test_larger_factors_slow_more(run, profile_with):
    keywords = {"trace": {"generate": CHAT}, "blocks": 1500, "dram": "8 GiB"}
    runs = [run(**keywords, hardware=profile_with(h2d=k, d2h=k)) for k in (0.0, 1.0, 4.0, 10.0)]
    spent = [r.summary["time"]["interference_s"] for r in runs]
    assert spent == sorted(set(spent))
    tpot = [r.summary["tpot_ms"]["mean"] for r in runs]
    assert tpot[0] < tpot[3]  # smaller factors cost 0.2 % and less, which other batches can outweigh


def test_waiting_for_launches_hides_interference(run, hand, prompt, tmp_path, profile_with):
    """A prefill of 16 tokens waits for its launches anyway: what it computes may take longer meanwhile."""
    raw = yaml.safe_load(hand.profile.read_text())
    raw["kernels"]["launch"]["stream"] = {"v": 60, "unit": "us", "src": "launch"}
    path = tmp_path / "slow-host.yaml"
    path.write_text(yaml.safe_dump(raw))
    rows = [(0, 8000, 1, prompt(0, 8000)), (0.001, 16, 1, prompt(1, 16))]
    result = run(rows, dram="100 GiB", hardware={"profile": str(path)})
    (store, *_), second = result.frames["transfers"].itertuples(), result.frames["steps"].iloc[1]
    assert second.prefill_tokens == 16
    assert store.start_s < second.end_s < store.end_s
    assert second.launch_s > 0
    assert second.interference_s == 0


def test_factors_are_marked_as_estimates():
    values = {v.path: v for name in ("h100-sxm", "a100-80") for v in load_profile(name).values()}
    factors = [v for path, v in values.items() if path.startswith("interference.")]
    assert len(factors) == 4
    assert all(v.source_text.startswith("estimate, not measured") and v.rel >= 0.4 for v in factors)
