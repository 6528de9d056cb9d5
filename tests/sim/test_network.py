"""Flows share links max-min fairly, to closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import STEP_LAST, Clock
from sim.hierarchy.network import Flow, Network, Resource


class Bench:
    """Starts flows at given times and notes when they end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.ends: dict[str, float] = {}

    def flow(self, name: str, at: float, path: list[Resource], size: int, service_s: float) -> None:
        def begin() -> None:
            done = lambda: self.ends.__setitem__(name, self.clock.now)  # noqa: E731
            self.network.start(self.clock.now, path, size, service_s, done)

        self.clock.at(at, begin)

    def run(self) -> dict[str, float]:
        self.clock.drain(None, lambda: None)
        return self.ends


def test_alone_it_takes_exactly_its_service_time() -> None:
    bench = Bench()
    bench.flow("a", 0.1, [Resource("link", 1e12)], 3_000, 0.7)
    assert bench.run() == {"a": 0.1 + 0.7}


def test_two_equal_flows_halve_a_full_link() -> None:
    bench, link = Bench(), Resource("link", 100.0)
    for name in "ab":
        bench.flow(name, 0.0, [link], 100, 1.0)
    assert bench.run() == {"a": pytest.approx(2.0), "b": pytest.approx(2.0)}


def test_a_late_flow_slows_the_first_from_then_on() -> None:
    """100 B/s link. a alone for 0.5 s moves 50 B; then both at 50 B/s: a ends at 1.5 s; b has 50 B left, alone."""
    bench, link = Bench(), Resource("link", 100.0)
    bench.flow("a", 0.0, [link], 100, 1.0)
    bench.flow("b", 0.5, [link], 100, 1.0)
    assert bench.run() == {"a": pytest.approx(1.5), "b": pytest.approx(2.0)}


def test_a_slow_flow_leaves_its_share_to_the_others() -> None:
    """10 B/s own pace beside a 100 B/s one on a 100 B/s link: 10 and 90."""
    bench, link = Bench(), Resource("link", 100.0)
    bench.flow("slow", 0.0, [link], 100, 10.0)
    bench.flow("fast", 0.0, [link], 180, 1.8)
    assert bench.run() == {"slow": pytest.approx(10.0), "fast": pytest.approx(2.0)}


def test_the_joint_cap_of_two_directions_binds() -> None:
    """Two 50 GB/s directions under a joint 80 GB/s: 40 each."""
    bench, joint = Bench(), Resource("joint", 80e9)
    up, down = Resource("h2d", 50e9), Resource("d2h", 50e9)
    bench.flow("up", 0.0, [up, joint], 50_000_000_000, 1.0)
    bench.flow("down", 0.0, [down, joint], 50_000_000_000, 1.0)
    assert bench.run() == {"up": pytest.approx(1.25), "down": pytest.approx(1.25)}


def test_the_three_link_example_of_max_min_fairness() -> None:
    """Two links of 3 B/s: a over both, b and c over the first, d over the second: 1, 1, 1 and 2 B/s."""
    bench, first, second = Bench(), Resource("first", 3.0), Resource("second", 3.0)
    for name, path in {"a": [first, second], "b": [first], "c": [first], "d": [second]}.items():
        bench.flow(name, 0.0, path, 30, 10.0)  # own pace 3 B/s
    ends = bench.run()
    # a, b, c at 1 B/s until they end at 30 s; d at 2 B/s ends at 15 s
    assert ends == {name: pytest.approx(30.0) for name in "abc"} | {"d": pytest.approx(15.0)}


def test_staggered_flows_share_as_they_come_and_go() -> None:
    """100 B/s. a from 0, b from 1, c from 2 s, 300 B each at most 100 B/s: a has 100, then 50, then 33 1/3.

    At 2 s a has 150 B left, b 250, c 300. At 6.5 s a ends; then b (100) and c (150) have 50 B/s each: b ends at 8.5 s;
    c has 50 B left and the link alone: 9 s.
    """
    bench, link = Bench(), Resource("link", 100.0)
    for at, name in enumerate("abc"):
        bench.flow(name, float(at), [link], 300, 3.0)
    assert bench.run() == {"a": pytest.approx(6.5), "b": pytest.approx(8.5), "c": pytest.approx(9.0)}


def test_four_gpus_behind_one_root_complex() -> None:
    """Four links of 50 GB/s under a root of 120: 30 each; two that want 10 leave 50 for the others, who have room."""
    bench, root = Bench(), Resource("root", 120e9)
    for i, gigabytes in enumerate((50, 50, 10, 10)):
        bench.flow(str(i), 0.0, [Resource(f"gpu{i}", 50e9), root], gigabytes * 10**9, 1.0)
    assert bench.run() == dict.fromkeys("0123", 1.0)  # 50 + 50 + 10 + 10 = 120: nobody is held up
    bench, root = Bench(), Resource("root", 120e9)
    for i in range(4):
        bench.flow(str(i), 0.0, [Resource(f"gpu{i}", 50e9), root], 50 * 10**9, 1.0)
    assert bench.run() == dict.fromkeys("0123", pytest.approx(200 / 120))


def test_a_bottleneck_elsewhere_leaves_bandwidth_to_others() -> None:
    """h2d and d2h of GPU 0 under a joint cap of 60, h2d of GPU 1 beside them under a root of 100: 30, 30 and 50."""
    bench = Bench()
    joint, root = Resource("joint0", 60.0), Resource("root", 100.0)
    bench.flow("up0", 0.0, [joint, root], 300, 6.0)
    bench.flow("down0", 0.0, [joint], 300, 6.0)
    bench.flow("up1", 0.0, [root], 500, 10.0)
    assert bench.run() == {"up0": pytest.approx(10), "down0": pytest.approx(10), "up1": pytest.approx(10)}


def test_what_is_left_falls_at_the_share_it_gets() -> None:
    """Own pace 100 B/s; half of it from 0.5 s on: 0.25 s of work are left at 1 s."""
    clock, link = Clock(), Resource("link", 100.0)
    network, left = Network(clock), []
    flow = network.start(0.0, [link], 100, 1.0, lambda: None)
    clock.at(0.5, lambda: network.start(0.5, [link], 100, 1.0, lambda: None))
    for at in (0.25, 0.5, 1.0, 1.5):
        clock.at(at, lambda at=at: left.append(network.left_s(flow, at)))
    clock.drain(None, lambda: None)
    assert left == pytest.approx([0.75, 0.5, 0.25, 0.0])


def test_no_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="0 B"):
        Network(Clock()).start(0.0, [], 0, 1.0, lambda: None)


FLOWS = st.lists(
    st.tuples(st.floats(0, 5), st.sets(st.integers(0, 3), min_size=1), st.integers(1, 1000), st.floats(0.01, 5)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(FLOWS, st.lists(st.floats(10, 500), min_size=4, max_size=4))
def test_bytes_arrive_no_faster_than_any_link_allows(flows, capacities) -> None:
    bench = Bench()
    links = [Resource(str(i), capacity) for i, capacity in enumerate(capacities)]
    for i, (at, path, size, service) in enumerate(flows):
        bench.flow(str(i), at, [links[j] for j in sorted(path)], size, service)
    ends = bench.run()
    assert len(ends) == len(flows)
    for i, (at, path, size, service) in enumerate(flows):
        quickest = max(service, *(size / capacities[j] for j in path))
        assert ends[str(i)] >= (at + quickest) * (1 - 1e-9)
    for j, link in enumerate(links):
        used = [(at, size, ends[str(i)]) for i, (at, path, size, _) in enumerate(flows) if j in path]
        assert not link.flows
        assert link.demand == 0.0
        assert link.bytes == sum(size for _, size, _ in used)
        if used:  # what crossed the link had time to cross it
            span = max(end for *_, end in used) - min(at for at, *_ in used)
            assert sum(size for _, size, _ in used) <= span * capacities[j] * (1 + 1e-9)


@settings(max_examples=150, deadline=None)
@given(FLOWS, st.lists(st.floats(10, 500), min_size=4, max_size=4), st.lists(st.floats(0, 12), max_size=8))
def test_shares_are_max_min_fair_at_any_time(flows, capacities, times) -> None:
    """No link above its capacity; each flow at its own pace, or on a full link where none is faster than it."""
    clock = Clock()
    network = Network(clock)
    links = [Resource(str(i), capacity) for i, capacity in enumerate(capacities)]
    going: dict[int, Flow] = {}
    for i, (at, path, size, service) in enumerate(flows):

        def begin(i=i, path=path, size=size, service=service) -> None:
            over = [links[j] for j in sorted(path)]
            going[i] = network.start(clock.now, over, size, service, lambda: going.pop(i) and None)

        clock.at(at, begin)

    def look() -> None:
        rates = {flow: flow.speed * flow.pace for flow in going.values()}
        used = {link: sum(rates[flow] for flow in link.flows) for link in links}
        assert all(total <= link.capacity * (1 + 1e-9) for link, total in used.items())
        for flow, rate in rates.items():
            assert 0 < flow.speed <= 1 + 1e-12
            bottlenecks = [
                link
                for link in flow.path
                if used[link] >= link.capacity * (1 - 1e-9)
                and rate >= max(rates[other] for other in link.flows) * (1 - 1e-9)
            ]
            assert bottlenecks or rate >= flow.pace * (1 - 1e-12)

    for at in (*times, *(at for at, *_ in flows)):
        clock.at(at, look, STEP_LAST)
    clock.drain(None, lambda: None)
    assert not going


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 1000)), min_size=1, max_size=10), st.floats(20, 400))
def test_a_shared_link_works_as_long_as_there_is_work(flows, capacity) -> None:
    """Flows that could each fill the link end when a FIFO server of its capacity would: no bandwidth is wasted."""
    bench, link = Bench(), Resource("link", capacity)
    end = 0.0
    for i, (at, size) in enumerate(sorted(flows)):
        bench.flow(str(i), at, [link], size, size / (2 * capacity))
        end = max(at, end) + size / capacity
    assert max(bench.run().values()) == pytest.approx(end)


@settings(max_examples=60, deadline=None)
@given(FLOWS)
def test_wide_links_change_nothing(flows) -> None:
    bench = Bench()
    links = [Resource(str(i), 1e9) for i in range(4)]
    for i, (at, path, size, service) in enumerate(flows):
        bench.flow(str(i), at, [links[j] for j in sorted(path)], size, service)
    ends = bench.run()
    assert ends == {str(i): at + service for i, (at, _, _, service) in enumerate(flows)}
