"""What an engine says while it works: backlog, estimates, bytes moved, busy or idle."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.cost_models import CopyModel, DeviceLink, LinkModel
from sim.hierarchy.network import Resource

DEVICE = DeviceLink(latency=1e-4, bandwidth=8e9, single=0.25, saturation=5, per_io=1e-5)


def test_backlog_and_estimate_are_what_happens_when_nothing_else_comes(new_bench) -> None:
    for chunk in (None, 700):
        bench = new_bench()
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
def test_estimates_are_exact_at_own_paces(new_bench, before, size, copies, chunk) -> None:
    bench = new_bench()
    engine = bench.engine(CopyModel(0.02, 900.0), chunk_bytes=chunk)
    for i, (at, other, parts) in enumerate(before):
        bench.send(engine, str(i), 0.3 * at, other, parts)
    backlog = bench.ask(3.0, engine.backlog_s)
    estimate = bench.ask(3.0, lambda: engine.estimate_s(size, copies))
    bench.send(engine, "new", 3.0, size, copies)
    ends = bench.run()
    assert 3.0 + backlog[0] == pytest.approx(bench.rows()["new"][1])
    assert 3.0 + estimate[0] == pytest.approx(ends["new"])


def test_a_device_estimates_with_the_queue_that_there_would_be(new_bench) -> None:
    bench = new_bench()
    engine = bench.engine(DEVICE)
    for i in range(3):
        bench.send(engine, str(i), 0.0, 10**7, 1)
    estimate = bench.ask(0.001, lambda: engine.estimate_s(10**7, 2))
    bench.send(engine, "new", 0.001, 10**7, 2)
    ends = bench.run()
    assert 0.001 + estimate[0] == pytest.approx(ends["new"])
    idle = new_bench().engine(DEVICE)
    assert (idle.backlog_s(), idle.estimate_s(10**7, 2)) == (0.0, DEVICE.seconds(10**7, 2, 2, True))


def test_moved_bytes_are_a_fluid_that_contention_slows(new_bench) -> None:
    """100 B/s own pace on a 100 B/s link; from 0.5 s on another flow takes half of it."""
    bench, link = new_bench(), Resource("link", 100.0)
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
def test_moved_only_grows_and_ends_at_all_bytes(new_bench, transfers, chunk) -> None:
    bench, link = new_bench(), Resource("link", 1500.0)
    engines = [bench.engine(LinkModel(0.01, 1000.0), (link,), chunk_bytes=chunk) for _ in range(2)]
    for i, (at, size, copies) in enumerate(transfers):
        bench.send(engines[i % 2], str(i), 0.5 * at, size, copies)
    answers = [bench.ask(0.2 * k, lambda k=k: sum(e.moved(0.2 * k) for e in engines)) for k in range(200)]
    bench.run()
    moved = [answer[0] for answer in answers]
    assert moved == sorted(moved)
    assert moved[-1] == sum(size for _, size, _ in transfers)
    assert all(b - a <= 1500.0 * 0.2 * (1 + 1e-9) for a, b in pairwise(moved))


def test_started_is_called_when_the_engine_turns_busy(new_bench) -> None:
    for chunk, again in ((None, 1.5), (4, 1.5)):
        bench, calls = new_bench(), []
        engine = bench.engine(LinkModel(0.0, 10.0), chunk_bytes=chunk)
        engine.started = lambda calls=calls, bench=bench, engine=engine: calls.append((bench.clock.now, engine.busy))
        for i, at in enumerate((0.0, 0.2, again)):  # the second queues behind the first
            bench.send(engine, str(i), at, 5, 5)
        assert not engine.busy
        bench.run()
        assert calls == [(0.0, True), (again, True)]
        assert not engine.busy
