"""Points of memory: HBM streams, the L2 knee, latencies, prefetch into L2, launches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from calibration.suite.facts import Facts
from calibration.suite.point import Costs, Key, Point, point

MIB = 2**20
L2_SHARES = (0.125, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.4, 2.0, 4.0)
L2_HELDOUT = (0.65, 0.95, 1.3)
"""Working sets as shares of the reported L2, dense around it: the knee cannot be fitted without points on its slope."""
L2_SECONDS = 400e-6
"""One sample reads its working set again and again for about so long."""
PREFETCH_MIB = (4, 8, 16, 24, 32, 48)
OTHER_MIB = (0, 16, 64)
LAUNCHES = ("stream", "single", "graph_1", "graph_100", "graph_1000", "sync", "event", "h2d_4", "d2h_4")
CHASE_STEPS = {"l2": 20_000, "hbm": 20_000, "host": 4_000}
_LATENCY_S = {"l2": 0.3e-6, "hbm": 0.7e-6, "host": 1.5e-6}


def stream_points(costs: Costs, largest: int, smallest: int = MIB) -> Iterator[Point]:
    """Read, write, copy of powers of two bytes up to `largest`; held out: 1.5 times some of them."""
    for op, passes in (("read", 1), ("write", 1), ("copy", 2)):
        size, number = smallest, 0
        while size <= largest:
            priority = 0 if number % 3 == 0 or 2 * size > largest else 2
            yield point(costs, "stream", costs.moved(passes * size), {"op": op, "bytes": size}, priority=priority)
            if number % 4 == 2 and size < largest:
                held = 3 * size // 2
                yield point(costs, "stream", costs.moved(passes * held), {"op": op, "bytes": held}, heldout=True)
            size, number = 2 * size, number + 1


def l2_points(costs: Costs, facts: Facts) -> Iterator[Point]:
    """The knee: the same working set read again and again."""
    for share in (*L2_SHARES, *L2_HELDOUT):
        size = int(share * facts.l2_bytes) // MIB * MIB or MIB
        held = share in L2_HELDOUT
        yield point(costs, "l2_read", L2_SECONDS, {"bytes": size}, heldout=held, priority=1, cold=False)


def latency_points(costs: Costs) -> Iterator[Point]:
    """One dependent load after another."""
    for where, steps in CHASE_STEPS.items():
        yield point(costs, "chase", steps * _LATENCY_S[where], {"where": where}, samples=5, priority=1, cold=False)


def prefetch_points(costs: Costs, facts: Facts) -> Iterator[Point]:
    """How fast `bytes` are read after a prefetch and `other` bytes of traffic, by method; cold and hot beside them."""
    methods = ("cold", "hot", "lines", "pages") if facts.bulk_prefetch else ("cold", "hot", "lines")
    for size, method in itertools.product(PREFETCH_MIB, methods):
        for other in OTHER_MIB if method in {"lines", "pages"} else (0,):
            seconds = costs.moved(2 * size * MIB + other * MIB)
            key: Key = {"method": method, "bytes": size * MIB, "other": other * MIB}
            yield point(costs, "l2_prefetch", seconds, key, priority=2, samples=11)
    for method in methods[1:]:
        # a product alone ("hot": no prefetch) and with a prefetch beside it
        yield point(costs, "gemm_beside_prefetch", 1e-3, {"method": method, "bytes": 16 * MIB}, priority=2, cold=False)


def launch_points(costs: Costs) -> Iterator[Point]:
    """What a launch, a synchronisation, an event and the smallest copies take."""
    for what in LAUNCHES:
        yield point(costs, "launch", 2e-3, {"what": what}, samples=25, priority=0, cold=False)
