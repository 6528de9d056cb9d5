"""Flows share links max-min fairly, to closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import Clock
from sim.hierarchy.network import Network, Resource


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


@settings(max_examples=60, deadline=None)
@given(FLOWS)
def test_wide_links_change_nothing(flows) -> None:
    bench = Bench()
    links = [Resource(str(i), 1e9) for i in range(4)]
    for i, (at, path, size, service) in enumerate(flows):
        bench.flow(str(i), at, [links[j] for j in sorted(path)], size, service)
    ends = bench.run()
    assert ends == {str(i): at + service for i, (at, _, _, service) in enumerate(flows)}
