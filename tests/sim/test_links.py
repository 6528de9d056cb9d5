"""Copy engines to closed forms: queues, devices, chunks, memory that is not pinned, what they say while they work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import nextafter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.cost_models import CopyModel, DeviceLink, LinkModel
from hw_profiles.devices import list_devices, load_device
from hw_profiles.loader import load_profile
from sim.clock import Clock
from sim.hierarchy.link import CopyEngine, Model
from sim.hierarchy.network import Network, Resource
from sim.hierarchy.transfer import Transfer
from sim.recorder import Recorder

COPIES = CopyModel(alpha=3e-6, beta=50e9, cut=16384, small_alpha=5e-7, small_beta=10e9, submit=4e-7, sms=4)
DEVICE = DeviceLink(latency=1e-4, bandwidth=8e9, single=0.25, saturation=5, per_io=1e-5)
MIB = 2**20


class Bench:
    """One clock, one network, engines over it; transfers at given times; when each arrived."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.recorder = Recorder()
        self.ends: dict[str, float] = {}

    def engine(self, model: Model, path: tuple[Resource, ...] = (), **keywords: object) -> CopyEngine:
        return CopyEngine("link", 0, model, path, self.network, self.clock, self.recorder, **keywords)  # type: ignore[arg-type]

    def send(self, engine: CopyEngine, name: str, at: float, size: int, copies: int = 1, pageable: int = 0) -> None:
        transfer = Transfer(name, "to", size, copies, "load", pageable)

        def note() -> None:
            self.ends[name] = self.clock.now

        self.clock.at(at, lambda: engine.submit(transfer, note))

    def ask(self, at: float, question: Callable[[], float]) -> list[float]:
        """The answer at a time, in a list that is filled when the clock gets there (after arrivals of that time)."""
        answer: list[float] = []
        self.clock.at(at, lambda: answer.append(question()))
        return answer

    def run(self) -> dict[str, float]:
        self.clock.drain(None, lambda: None)
        return self.ends

    def rows(self) -> dict[str, tuple[float, float, float, int]]:
        """Of each transfer: queued, start, end, bytes."""
        columns = self.recorder.transfers.arrays()
        keys = [columns[name] for name in ("queued_s", "start_s", "end_s", "bytes")]
        return dict(zip(columns["src"], zip(*keys, strict=True), strict=True))


# ---- one after the other


@pytest.mark.parametrize(
    "model", [LinkModel(3e-6, 5e10), COPIES, DEVICE, lambda size, copies, _o, _i: size * copies / 1e9]
)
@pytest.mark.parametrize("at", [0.0, 0.1, 7.3])
def test_alone_it_ends_at_start_plus_service_to_the_bit(model: Model, at: float) -> None:
    bench = Bench()
    engine = bench.engine(model, (Resource("wide", 1e15),))
    bench.send(engine, "a", at, 48 * MIB, 24)
    service = engine.service_s(Transfer("a", "to", 48 * MIB, 24, "load"))
    assert bench.run() == {"a": at + service}
    assert bench.rows() == {"a": (at, at, at + service, 48 * MIB)}
    assert engine.bytes == 48 * MIB


def test_service_is_what_the_model_says() -> None:
    bench, small = Bench(), Transfer("a", "to", 100 * 8192, 100, "load")
    assert bench.engine(COPIES).service_s(small) == COPIES.seconds(small.size, 100)
    assert bench.engine(LinkModel(3e-6, 5e10)).service_s(small) == 100 * 3e-6 + small.size / 5e10
    assert bench.engine(DEVICE).service_s(small) == pytest.approx(1e-4 + 100 * 1e-5 + small.size / 8e9)


def test_queued_transfers_are_blocked_until_the_one_before_has_arrived() -> None:
    bench, link = Bench(), LinkModel(1e-5, 1e9)
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
def test_arrivals_follow_the_recurrence_of_a_fifo_server(transfers) -> None:
    """End of n = max(arrival of n, end of n - 1) + service of n."""
    bench = Bench()
    engine = bench.engine(COPIES)
    transfers.sort()
    end, expected = 0.0, {}
    for i, (at, size, copies) in enumerate(transfers):
        bench.send(engine, str(i), at / 1000, size, copies)
        end = max(at / 1000, end) + COPIES.seconds(size, copies)
        expected[str(i)] = end
    assert bench.run() == expected


def test_the_queue_of_deterministic_service_is_that_of_md1() -> None:
    """Poisson arrivals, equal transfers: mean wait rho s / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    bench = Bench()
    engine = bench.engine(LinkModel(0.0, 1e9))
    service, load = 1e-3, 0.6
    gaps = np.random.Generator(np.random.Philox(5)).exponential(service / load, 20_000)
    for i, at in enumerate(np.cumsum(gaps)):
        bench.send(engine, str(i), float(at), 10**6)
    bench.run()
    waits = [start - queued for queued, start, _, _ in bench.rows().values()]
    assert np.mean(waits) == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)


# ---- devices


def test_latency_is_charged_when_the_device_was_idle() -> None:
    bench = Bench()
    engine = bench.engine(DEVICE)
    bench.send(engine, "first", 0.0, 8 * 10**6, 1)
    bench.send(engine, "queued", 0.001, 8 * 10**6, 1)
    bench.send(engine, "later", 1.0, 8 * 10**6, 1)
    busy = 1e-5 + 8e6 / 2e9  # one copy outstanding: a quarter of 8 GB/s
    ends = bench.run()
    assert ends["first"] == pytest.approx(1e-4 + busy)
    assert ends["queued"] - ends["first"] == pytest.approx(busy)
    assert ends["later"] == pytest.approx(1.0 + 1e-4 + busy)


def test_the_queue_makes_the_device_faster() -> None:
    """Two copies behind the one in service: each starts with what is still outstanding, 3 then 2 then 1 copies."""
    bench = Bench()
    engine = bench.engine(dataclasses.replace(DEVICE, latency=0.0, per_io=0.0))
    bench.send(engine, "head", 0.0, 10**6)
    for name in "abc":
        bench.send(engine, name, 1e-6, 10**6)
    ends = bench.run()
    rates = [8e9 * (0.25 + 0.75 * (q - 1) / 4) for q in (1, 3, 2, 1)]
    took = [ends["head"], *(ends[b] - ends[a] for a, b in (("head", "a"), ("a", "b"), ("b", "c")))]
    assert took == pytest.approx([1e6 / rate for rate in rates])


def test_saturated_devices_reach_their_bandwidth() -> None:
    for name in list_devices():
        for link in (load_device(name).read, load_device(name).write):
            bench = Bench()
            engine = bench.engine(link)
            bench.send(engine, "a", 0.0, 2**36, 2**12)
            assert bench.run()["a"] == pytest.approx(link.latency + 2**12 * link.per_io + 2**36 / link.bandwidth)


def test_a_slow_device_is_what_the_host_waits_for() -> None:
    """Device and PCIe as two flows over one bus: the bus binds only when it is the narrower of the two."""
    for bus, expected in ((4e9, 10**9 / 4e9), (100e9, 10**9 / 8e9)):
        bench = Bench()
        engine = bench.engine(DeviceLink(0.0, 8e9), (Resource("bus", bus),))
        bench.send(engine, "a", 0.0, 10**9)
        assert bench.run()["a"] == pytest.approx(expected)


# ---- chunks


def test_a_short_transfer_waits_for_one_chunk() -> None:
    """64 MB in chunks of 8 MB at 1 GB/s; 1 MB that comes at 1 ms waits until 8 ms, not until 64 ms."""
    for chunk, start in ((8 * 10**6, 0.008), (None, 0.064)):
        bench = Bench()
        engine = bench.engine(LinkModel(0.0, 1e9), chunk_bytes=chunk)
        bench.send(engine, "long", 0.0, 64 * 10**6, 64)
        bench.send(engine, "short", 0.001, 10**6)
        just_before = bench.ask(nextafter(start, 0), lambda bench=bench: float(len(bench.ends)))
        ends = bench.run()
        rows = bench.rows()
        assert rows["short"][1] == pytest.approx(start)
        assert ends["short"] == pytest.approx(start + 0.001)
        assert ends["long"] == pytest.approx(0.065 if chunk else 0.064)
        assert rows["long"] == (0.0, 0.0, ends["long"], 64 * 10**6)  # one row, from its first start to its last end
        assert just_before == [0.0]
        assert engine.bytes == 65 * 10**6
        assert engine.busy_s == pytest.approx(0.065)


def test_chunked_transfers_take_turns() -> None:
    """Three of 4, 2 and 1 chunks at once, one chunk per second: order a b c a b a a."""
    bench = Bench()
    engine = bench.engine(LinkModel(0.0, 10.0), chunk_bytes=10)
    for name, size in (("a", 40), ("b", 20), ("c", 10)):
        bench.send(engine, name, 0.0, size, size)
    assert bench.run() == {"c": pytest.approx(3), "b": pytest.approx(5), "a": pytest.approx(7)}


def test_chunking_alone_costs_nothing_unless_copies_are_split() -> None:
    for size, copies, set_ups in ((64, 16, 16), (60, 7, 7), (64, 2, 8), (5, 1, 1)):
        bench = Bench()
        engine = bench.engine(LinkModel(0.25, 1.0), chunk_bytes=8 if copies != 7 else 9)
        bench.send(engine, "a", 0.0, size, copies)
        assert bench.run() == {"a": pytest.approx(size + 0.25 * set_ups)}
        assert engine.service_s(Transfer("a", "to", size, copies, "load")) == pytest.approx(size + 0.25 * set_ups)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5000), st.integers(1, 40)), min_size=1, max_size=8),
    st.integers(1, 6000),
)
def test_chunks_lose_no_byte_and_the_server_never_rests(transfers, chunk) -> None:
    bench, link = Bench(), LinkModel(1e-3, 1000.0)
    engine = bench.engine(link, chunk_bytes=chunk)
    transfers.sort()
    end = work = 0.0
    for i, (at, size, copies) in enumerate(transfers):
        bench.send(engine, str(i), float(at), size, copies)
        service = engine.service_s(Transfer("", "", size, copies, ""))
        end = max(float(at), end) + service
        work += service
    ends = bench.run()
    assert len(ends) == len(transfers)
    assert engine.bytes == sum(size for _, size, _ in transfers) == engine.moved(bench.clock.now)
    assert max(ends.values()) == pytest.approx(end)  # whatever the order, the last byte is as late as in a FIFO queue
    assert engine.busy_s == pytest.approx(work)
    assert not engine.busy


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=6), st.integers(1, 4000))
def test_nobody_waits_longer_than_a_chunk_of_each_other(sizes, chunk) -> None:
    bench = Bench()
    engine = bench.engine(LinkModel(0.0, 1000.0), chunk_bytes=chunk)
    for i, size in enumerate(sizes):
        bench.send(engine, str(i), 0.0, size, size)
    bench.send(engine, "probe", 0.25, 1)
    bench.run()
    assert bench.rows()["probe"][1] - 0.25 <= len(sizes) * chunk / 1000.0 + 1e-9


def test_a_chunk_needs_a_byte() -> None:
    with pytest.raises(ValueError, match="at least one byte, not 0"):
        Bench().engine(COPIES, chunk_bytes=0)


# ---- memory that is not pinned


def test_pageable_bytes_go_at_their_own_rate() -> None:
    bench = Bench()
    engine = bench.engine(LinkModel(0.0, 50e9), pageable=10e9)
    for i, pageable in enumerate((0, 10**9, 2 * 10**9)):
        bench.send(engine, str(i), 10.0 * i, 2 * 10**9, 1, pageable)
    ends = bench.run()
    assert [ends[str(i)] - 10.0 * i for i in range(3)] == pytest.approx([2 / 50, 1 / 50 + 1 / 10, 2 / 10])


def test_pageable_bytes_are_spread_over_chunks() -> None:
    whole, parts = (Bench().engine(LinkModel(0.0, 50.0), pageable=10.0, chunk_bytes=c) for c in (None, 30))
    transfer = Transfer("", "", 100, 10, "", 40)
    assert parts.service_s(transfer) == whole.service_s(transfer) == pytest.approx(60 / 50 + 40 / 10)


def test_pageable_memory_never_helps_and_needs_a_rate() -> None:
    half = Transfer("", "", 10**6, 10, "", 5 * 10**5)
    for rate in (1e9, 50e9, 1e15):
        assert Bench().engine(COPIES, pageable=rate).service_s(half) >= COPIES.seconds(10**6, 10)
    with pytest.raises(ValueError, match="link has no rate for memory that is not pinned"):
        Bench().engine(COPIES).service_s(half)


# ---- what it says while it works


def test_backlog_and_estimate_are_what_happens_when_nothing_else_comes() -> None:
    for chunk in (None, 700):
        bench = Bench()
        engine = bench.engine(LinkModel(0.01, 1000.0), chunk_bytes=chunk)
        for i, size in enumerate((900, 2500, 400)):
            bench.send(engine, str(i), 0.1 * i, size, 5)
        backlog = bench.ask(0.95, engine.backlog_s)
        estimate = bench.ask(0.95, lambda e=engine: e.estimate_s(1800, 6))
        bench.send(engine, "new", 0.95, 1800, 6)
        ends = bench.run()
        assert 0.95 + backlog[0] == pytest.approx(bench.rows()["new"][1])
        assert 0.95 + estimate[0] == pytest.approx(ends["new"])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5000), st.integers(1, 20)), max_size=6),
    st.integers(1, 5000),
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(50, 6000)),
)
def test_estimates_are_exact_at_own_paces(before, size, copies, chunk) -> None:
    bench = Bench()
    engine = bench.engine(CopyModel(0.02, 900.0, 100, 0.05, 400.0), chunk_bytes=chunk)
    for i, (at, other, parts) in enumerate(before):
        bench.send(engine, str(i), 0.3 * at, other, parts)
    backlog = bench.ask(3.0, engine.backlog_s)
    estimate = bench.ask(3.0, lambda: engine.estimate_s(size, copies))
    bench.send(engine, "new", 3.0, size, copies)
    ends = bench.run()
    assert 3.0 + backlog[0] == pytest.approx(bench.rows()["new"][1])
    assert 3.0 + estimate[0] == pytest.approx(ends["new"])


def test_a_device_estimates_with_the_queue_that_there_would_be() -> None:
    bench = Bench()
    engine = bench.engine(DEVICE)
    for i in range(3):
        bench.send(engine, str(i), 0.0, 10**7, 1)
    estimate = bench.ask(0.001, lambda: engine.estimate_s(10**7, 2))
    bench.send(engine, "new", 0.001, 10**7, 2)
    ends = bench.run()
    assert 0.001 + estimate[0] == pytest.approx(ends["new"])
    idle = Bench().engine(DEVICE)
    assert (idle.backlog_s(), idle.estimate_s(10**7, 2)) == (0.0, DEVICE.seconds(10**7, 2, 2, True))


def test_moved_bytes_are_a_fluid_that_contention_slows() -> None:
    """100 B/s own pace on a 100 B/s link; from 0.5 s on another flow takes half of it."""
    bench, link = Bench(), Resource("link", 100.0)
    first, second = bench.engine(LinkModel(0.0, 100.0), (link,)), bench.engine(LinkModel(0.0, 100.0), (link,))
    bench.send(first, "a", 0.0, 100)
    bench.send(first, "b", 0.0, 100)
    bench.send(second, "c", 0.5, 1000)
    answers = {at: bench.ask(at, lambda at=at: first.moved(at)) for at in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.5)}
    bench.run()
    fluid = {0.25: 25, 0.5: 50, 0.75: 62.5, 1.0: 75, 1.5: 100, 2.0: 125, 3.5: 200}
    assert {at: answer[0] for at, answer in answers.items()} == {at: pytest.approx(b) for at, b in fluid.items()}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5000), st.integers(1, 9)), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(50, 6000)),
)
def test_moved_only_grows_and_ends_at_all_bytes(transfers, chunk) -> None:
    bench, link = Bench(), Resource("link", 1500.0)
    engines = [bench.engine(LinkModel(0.01, 1000.0), (link,), chunk_bytes=chunk) for _ in range(2)]
    for i, (at, size, copies) in enumerate(transfers):
        bench.send(engines[i % 2], str(i), 0.5 * at, size, copies)
    answers = [bench.ask(0.2 * k, lambda k=k: sum(e.moved(0.2 * k) for e in engines)) for k in range(200)]
    bench.run()
    moved = [answer[0] for answer in answers]
    assert moved == sorted(moved)
    assert moved[-1] == sum(size for _, size, _ in transfers)
    assert all(b - a <= 1500.0 * 0.2 * (1 + 1e-9) for a, b in pairwise(moved))


def test_started_is_called_when_the_engine_turns_busy() -> None:
    for chunk, again in ((None, 1.5), (4, 1.5)):
        bench, calls = Bench(), []
        engine = bench.engine(LinkModel(0.0, 10.0), chunk_bytes=chunk)
        engine.started = lambda calls=calls, bench=bench, engine=engine: calls.append((bench.clock.now, engine.busy))
        for i, at in enumerate((0.0, 0.2, again)):  # the second queues behind the first
            bench.send(engine, str(i), at, 5, 5)
        assert not engine.busy
        bench.run()
        assert calls == [(0.0, True), (again, True)]
        assert not engine.busy


# ---- every knob


KNOBS = [
    (COPIES, {"alpha": 1, "beta": -1}, 64 * 1024),
    (COPIES, {"small_alpha": 1, "small_beta": -1}, 8 * 1024),
    (dataclasses.replace(COPIES, submit=1e-5), {"submit": 1}, 8 * 1024),
    (DEVICE, {"latency": 1, "bandwidth": -1, "single": -1, "saturation": 1, "per_io": 1}, 64 * 1024),
]


@pytest.mark.parametrize(("model", "signs", "block"), KNOBS)
def test_every_knob_of_a_model_moves_the_end_of_a_queue(model: Model, signs: dict[str, int], block: int) -> None:
    def end(model: Model) -> float:
        bench = Bench()
        engine = bench.engine(model)
        for i in range(3):
            bench.send(engine, str(i), 0.0, 2 * block, 2)
        return max(bench.run().values())

    for name, sign in signs.items():
        changed = dataclasses.replace(model, **{name: 2 * getattr(model, name)})  # type: ignore[type-var]
        assert (end(changed) - end(model)) * sign > 0, name


def test_methods_of_the_h100_rank_as_measured_on_small_pages() -> None:
    """1,000 pages of 8 KiB toward the GPU: kernel, then batch, then a copy each; of 2 MiB within 20 % of each other."""
    profile = load_profile("h100-sxm")

    def end(method: str, block: int) -> float:
        bench = Bench()
        bench.send(bench.engine(profile.copy_model("pcie_h2d", method)), "a", 0.0, 1000 * block, 1000)
        return bench.run()["a"]

    small = [end(method, 8192) for method in ("kernel", "batch", "loop")]
    assert small == sorted(small)
    assert small[1] > 3 * small[0]
    large = [end(method, 2 * MIB) for method in ("kernel", "batch", "loop")]
    assert max(large) < 1.2 * min(large)


def test_both_directions_meet_the_joint_cap_of_their_method() -> None:
    """2 MiB blocks both ways at once on an H100: 83.4 GB/s by copy engines, 68.5 GB/s by kernels."""
    profile = load_profile("h100-sxm")
    for method in ("loop", "kernel"):
        cap = profile.joint_cap(method)
        assert cap is not None
        bench, joint = Bench(), Resource("joint", cap)
        for link in ("pcie_h2d", "pcie_d2h"):
            engine = bench.engine(profile.copy_model(link, method), (joint,))
            bench.send(engine, link, 0.0, 1000 * 2 * MIB, 1000)
        ends = bench.run()
        share = Fraction(1000 * 2 * MIB) / (Fraction(cap) / 2)  # equal shares of the cap
        assert min(ends.values()) == pytest.approx(float(share))
