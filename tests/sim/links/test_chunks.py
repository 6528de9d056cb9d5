"""Transfers served in chunks, and memory that is not pinned."""

from __future__ import annotations

from math import nextafter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.cost_models import CopyModel, LinkModel
from sim.hierarchy.transfer import Transfer

COPIES = CopyModel(alpha=3e-6, beta=50e9, cut=16384, small_alpha=5e-7, small_beta=10e9, submit=4e-7, sms=4)


def test_a_short_transfer_waits_for_one_chunk(new_bench) -> None:
    """64 MB in chunks of 8 MB at 1 GB/s; 1 MB that comes at 1 ms waits until 8 ms, not until 64 ms."""
    for chunk, start in ((8 * 10**6, 0.008), (None, 0.064)):
        bench = new_bench()
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


def test_chunked_transfers_take_turns(new_bench) -> None:
    """Three of 4, 2 and 1 chunks at once, one chunk per second: order a b c a b a a."""
    bench = new_bench()
    engine = bench.engine(LinkModel(0.0, 10.0), chunk_bytes=10)
    for name, size in (("a", 40), ("b", 20), ("c", 10)):
        bench.send(engine, name, 0.0, size, size)
    assert bench.run() == {"c": pytest.approx(3), "b": pytest.approx(5), "a": pytest.approx(7)}


def test_chunking_alone_costs_nothing_unless_copies_are_split(new_bench) -> None:
    for size, copies, set_ups in ((64, 16, 16), (60, 7, 7), (64, 2, 8), (5, 1, 1)):
        bench = new_bench()
        engine = bench.engine(LinkModel(0.25, 1.0), chunk_bytes=8 if copies != 7 else 9)
        bench.send(engine, "a", 0.0, size, copies)
        assert bench.run() == {"a": pytest.approx(size + 0.25 * set_ups)}
        assert engine.service_s(Transfer("a", "to", size, copies, "load")) == pytest.approx(size + 0.25 * set_ups)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5000), st.integers(1, 40)), min_size=1, max_size=8),
    st.integers(1, 6000),
)
def test_chunks_lose_no_byte_and_the_server_never_rests(new_bench, transfers, chunk) -> None:
    bench, link = new_bench(), LinkModel(1e-3, 1000.0)
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
def test_nobody_waits_longer_than_a_chunk_of_each_other(new_bench, sizes, chunk) -> None:
    bench = new_bench()
    engine = bench.engine(LinkModel(0.0, 1000.0), chunk_bytes=chunk)
    for i, size in enumerate(sizes):
        bench.send(engine, str(i), 0.0, size, size)
    bench.send(engine, "probe", 0.25, 1)
    bench.run()
    assert bench.rows()["probe"][1] - 0.25 <= len(sizes) * chunk / 1000.0 + 1e-9


def test_a_chunk_needs_a_byte(new_bench) -> None:
    with pytest.raises(ValueError, match="at least one byte, not 0"):
        new_bench().engine(COPIES, chunk_bytes=0)


def test_pageable_bytes_go_at_their_own_rate(new_bench) -> None:
    bench = new_bench()
    engine = bench.engine(LinkModel(0.0, 50e9), pageable=10e9)
    for i, pageable in enumerate((0, 10**9, 2 * 10**9)):
        bench.send(engine, str(i), 10.0 * i, 2 * 10**9, 1, pageable)
    ends = bench.run()
    assert [ends[str(i)] - 10.0 * i for i in range(3)] == pytest.approx([2 / 50, 1 / 50 + 1 / 10, 2 / 10])


def test_pageable_bytes_are_spread_over_chunks(new_bench) -> None:
    whole, parts = (new_bench().engine(LinkModel(0.0, 50.0), pageable=10.0, chunk_bytes=c) for c in (None, 30))
    transfer = Transfer("", "", 100, 10, "", 40)
    assert parts.service_s(transfer) == whole.service_s(transfer) == pytest.approx(60 / 50 + 40 / 10)


def test_pageable_memory_never_helps_and_needs_a_rate(new_bench) -> None:
    half = Transfer("", "", 10**6, 10, "", 5 * 10**5)
    for rate in (1e9, 50e9, 1e15):
        assert new_bench().engine(COPIES, pageable=rate).service_s(half) >= COPIES.seconds(10**6, 10)
    with pytest.raises(ValueError, match="link has no rate for memory that is not pinned"):
        new_bench().engine(COPIES).service_s(half)
