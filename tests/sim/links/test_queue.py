"""Copy engines to closed forms: a serial queue, devices, and every knob of a model."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from math import nextafter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.cost_models import CopyModel, DeviceLink, LinkModel
from hw_profiles.devices import list_devices, load_device
from hw_profiles.loader import load_profile
from sim.hierarchy.link import Model
from sim.hierarchy.network import Resource
from sim.hierarchy.transfer import Transfer

COPIES = CopyModel(alpha=3e-6, beta=50e9, cut=16384, small_alpha=5e-7, small_beta=10e9, submit=4e-7, sms=4)
DEVICE = DeviceLink(latency=1e-4, bandwidth=8e9, single=0.25, saturation=5, per_io=1e-5)
MIB = 2**20


@pytest.mark.parametrize(
    "model", [LinkModel(3e-6, 5e10), COPIES, DEVICE, lambda size, copies, _o, _i: size * copies / 1e9]
)
@pytest.mark.parametrize("at", [0.0, 0.1, 7.3])
def test_alone_it_ends_at_start_plus_service_to_the_bit(new_bench, model: Model, at: float) -> None:
    bench = new_bench()
    engine = bench.engine(model, (Resource("wide", 1e15),))
    bench.send(engine, "a", at, 48 * MIB, 24)
    service = engine.service_s(Transfer("a", "to", 48 * MIB, 24, "load"))
    assert bench.run() == {"a": at + service}
    assert bench.rows() == {"a": (at, at, at + service, 48 * MIB)}
    assert engine.bytes == 48 * MIB


def test_service_is_what_the_model_says(new_bench) -> None:
    bench, small = new_bench(), Transfer("a", "to", 100 * 8192, 100, "load")
    assert bench.engine(COPIES).service_s(small) == COPIES.seconds(small.size, 100)
    assert bench.engine(LinkModel(3e-6, 5e10)).service_s(small) == 100 * 3e-6 + small.size / 5e10
    assert bench.engine(DEVICE).service_s(small) == pytest.approx(1e-4 + 100 * 1e-5 + small.size / 8e9)


def test_queued_transfers_are_blocked_until_the_one_before_has_arrived(new_bench) -> None:
    bench, link = new_bench(), LinkModel(1e-5, 1e9)
    engine = bench.engine(link)
    for i, at in enumerate((0.0, 0.001, 0.5)):
        bench.send(engine, str(i), at, 10**6)
    one = link.seconds(10**6, 1)
    just_before = bench.ask(nextafter(2 * one, 0), lambda: float(len(bench.ends)))
    assert bench.run() == {"0": one, "1": one + one, "2": 0.5 + one}
    assert just_before == [1.0]
    assert [row[:2] for row in bench.rows().values()] == [(0, 0), (0.001, one), (0.5, 0.5)]
    assert engine.busy_s == pytest.approx(3 * one)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10**9), st.integers(1, 500)), min_size=1, max_size=15))
def test_arrivals_follow_the_recurrence_of_a_fifo_server(new_bench, transfers) -> None:
    """End of n = max(arrival of n, end of n - 1) + service of n."""
    bench = new_bench()
    engine = bench.engine(COPIES)
    transfers.sort()
    end, expected = 0.0, {}
    for i, (at, size, copies) in enumerate(transfers):
        bench.send(engine, str(i), at / 1000, size, copies)
        end = max(at / 1000, end) + COPIES.seconds(size, copies)
        expected[str(i)] = end
    assert bench.run() == expected


def test_the_queue_of_deterministic_service_is_that_of_md1(new_bench) -> None:
    """Poisson arrivals, equal transfers: mean wait rho s / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    bench = new_bench()
    engine = bench.engine(LinkModel(0.0, 1e9))
    service, load = 1e-3, 0.6
    gaps = np.random.Generator(np.random.Philox(5)).exponential(service / load, 20_000)
    for i, at in enumerate(np.cumsum(gaps)):
        bench.send(engine, str(i), float(at), 10**6)
    bench.run()
    waits = [start - queued for queued, start, _, _ in bench.rows().values()]
    assert np.mean(waits) == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)


def test_latency_is_charged_when_the_device_was_idle(new_bench) -> None:
    bench = new_bench()
    engine = bench.engine(DEVICE)
    bench.send(engine, "first", 0.0, 8 * 10**6, 1)
    bench.send(engine, "queued", 0.001, 8 * 10**6, 1)
    bench.send(engine, "later", 1.0, 8 * 10**6, 1)
    busy = 1e-5 + 8e6 / 2e9  # one copy outstanding: a quarter of 8 GB/s
    ends = bench.run()
    assert ends["first"] == pytest.approx(1e-4 + busy)
    assert ends["queued"] - ends["first"] == pytest.approx(busy)
    assert ends["later"] == pytest.approx(1.0 + 1e-4 + busy)


def test_the_queue_makes_the_device_faster(new_bench) -> None:
    """Two copies behind the one in service: each starts with what is still outstanding, 3 then 2 then 1 copies."""
    bench = new_bench()
    engine = bench.engine(dataclasses.replace(DEVICE, latency=0.0, per_io=0.0))
    bench.send(engine, "head", 0.0, 10**6)
    for name in "abc":
        bench.send(engine, name, 1e-6, 10**6)
    ends = bench.run()
    rates = [8e9 * (0.25 + 0.75 * (q - 1) / 4) for q in (1, 3, 2, 1)]
    took = [ends["head"], *(ends[b] - ends[a] for a, b in (("head", "a"), ("a", "b"), ("b", "c")))]
    assert took == pytest.approx([1e6 / rate for rate in rates])


def test_saturated_devices_reach_their_bandwidth(new_bench) -> None:
    for name in list_devices():
        for link in (load_device(name).read, load_device(name).write):
            bench = new_bench()
            engine = bench.engine(link)
            bench.send(engine, "a", 0.0, 2**36, 2**12)
            assert bench.run()["a"] == pytest.approx(link.latency + 2**12 * link.per_io + 2**36 / link.bandwidth)


def test_a_slow_device_is_what_the_host_waits_for(new_bench) -> None:
    """Device and PCIe as two flows over one bus: the bus binds only when it is the narrower of the two."""
    for bus, expected in ((4e9, 10**9 / 4e9), (100e9, 10**9 / 8e9)):
        bench = new_bench()
        engine = bench.engine(DeviceLink(0.0, 8e9), (Resource("bus", bus),))
        bench.send(engine, "a", 0.0, 10**9)
        assert bench.run()["a"] == pytest.approx(expected)


KNOBS = [
    (COPIES, {"alpha": 1, "beta": -1}, 64 * 1024),
    (COPIES, {"small_alpha": 1, "small_beta": -1}, 8 * 1024),
    (dataclasses.replace(COPIES, submit=1e-5), {"submit": 1}, 8 * 1024),
    (DEVICE, {"latency": 1, "bandwidth": -1, "single": -1, "saturation": 1, "per_io": 1}, 64 * 1024),
]


@pytest.mark.parametrize(("model", "signs", "block"), KNOBS)
def test_every_knob_of_a_model_moves_the_end_of_a_queue(
    new_bench, model: Model, signs: dict[str, int], block: int
) -> None:
    def end(model: Model) -> float:
        bench = new_bench()
        engine = bench.engine(model)
        for i in range(3):
            bench.send(engine, str(i), 0.0, 2 * block, 2)
        return max(bench.run().values())

    for name, sign in signs.items():
        changed = dataclasses.replace(model, **{name: 2 * getattr(model, name)})  # type: ignore[type-var]
        assert (end(changed) - end(model)) * sign > 0, name


def test_methods_of_the_h100_rank_as_measured_on_small_pages(new_bench) -> None:
    """1,000 pages of 8 KiB toward the GPU: kernel, then batch, then a copy each; of 2 MiB within 20 % of each other."""
    profile = load_profile("h100-sxm")

    def end(method: str, block: int) -> float:
        bench = new_bench()
        bench.send(bench.engine(profile.copy_model("pcie_h2d", method)), "a", 0.0, 1000 * block, 1000)
        return bench.run()["a"]

    small = [end(method, 8192) for method in ("kernel", "batch", "loop")]
    assert small == sorted(small)
    assert small[1] > 3 * small[0]
    large = [end(method, 2 * MIB) for method in ("kernel", "batch", "loop")]
    assert max(large) < 1.2 * min(large)


def test_both_directions_meet_the_joint_cap_of_their_method(new_bench) -> None:
    """2 MiB blocks both ways at once on an H100: 83.4 GB/s by copy engines, 68.5 GB/s by kernels."""
    profile = load_profile("h100-sxm")
    for method in ("loop", "kernel"):
        cap = profile.joint_cap(method)
        assert cap is not None
        bench, joint = new_bench(), Resource("joint", cap)
        for link in ("pcie_h2d", "pcie_d2h"):
            engine = bench.engine(profile.copy_model(link, method), (joint,))
            bench.send(engine, link, 0.0, 1000 * 2 * MIB, 1000)
        ends = bench.run()
        share = Fraction(1000 * 2 * MIB) / (Fraction(cap) / 2)  # equal shares of the cap
        assert min(ends.values()) == pytest.approx(float(share))
