"""How bytes get from one tier to another: the copy engines on the way, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sim.hierarchy.link import CopyEngine
from sim.hierarchy.network import Resource
from sim.hierarchy.transfer import Transfer


class Hop(NamedTuple):
    """One link of a route: `engine` copies from `src` to `dst` (names of tiers, or "host" for a bounce buffer) in
    copies of `unit` bytes, over the shared bandwidths `via` besides its own."""

    engine: CopyEngine
    src: str
    dst: str
    unit: int
    via: tuple[Resource, ...] = ()
    pageable: float = 0.0
    """Share of the host memory at its other end that is not page-locked, for estimates."""

    def transfer(self, size: int, reason: str, pageable: int = 0) -> Transfer:
        """The record of `size` bytes over this link, `pageable` of them from or to memory that is not page-locked.

        A GPU's link alone minds that; drives and network cards have buffers of their own.
        """
        slow = pageable if self.engine.pageable is not None else 0
        return Transfer(self.src, self.dst, size, -(-size // self.unit), reason, slow, self.via)


Route = tuple[Hop, ...]

HOST = "host"
"""Where bytes wait between two links when no tier keeps them: a bounce buffer in host memory."""


PIPELINE_GROUPS = 8
"""Groups into which a load over several links is cut: the last link ends one group after the slowest one."""


def send(
    route: Route,
    sizes: Sequence[int],
    reason: str,
    done: Callable[[], None],
    passed: Callable[[int], None] | None = None,
    *,
    groups: int = 1,
    pageable: Sequence[int] = (),
) -> None:
    """Copy items of `sizes` bytes over the route; `done()` when the last byte of the last has arrived.

    Over one link they are one transfer. Over several they are cut into at most `groups` groups of consecutive items,
    each of which goes on by itself when it has crossed a link, so the links work at the same time. `passed(i)` is
    called when item i has crossed the first link of several. `pageable`: bytes of each item that are not in page-locked
    host memory; none if left out.
    """
    if len(route) == 1:
        hop = route[0]
        hop.engine.submit(hop.transfer(sum(sizes), reason, sum(pageable)), done)
        return
    length = -(-len(sizes) // groups)
    left = -(-len(sizes) // length)

    def forward(first: int, size: int, stage: int) -> None:
        hop = route[stage]

        def arrived() -> None:
            nonlocal left
            if stage + 1 < len(route):
                if passed is not None and not stage:
                    for item in range(first, min(first + length, len(sizes))):
                        passed(item)
                forward(first, size, stage + 1)
                return
            left -= 1
            if not left:
                done()

        hop.engine.submit(hop.transfer(size, reason, sum(pageable[first : first + length])), arrived)

    for first in range(0, len(sizes), length):
        forward(first, sum(sizes[first : first + length]), 0)


def alone_s(route: Route, size: int) -> float:
    """Seconds that `size` bytes take over the route when no other copy is in the way, as one item.

    The slowest of its links and of the bandwidths that they share decides: all work at the same time, and what several
    links of the route pass carries the bytes once for each. What limits two directions together (`Resource.least`)
    counts while the other one is in use.
    """
    slowest = 0.0
    passes: dict[Resource, int] = {}
    for hop in route:
        slowest = max(slowest, hop.engine.service_s(hop.transfer(size, "estimate", round(size * hop.pageable))))
        for resource in (*hop.engine.path, *hop.via):
            passes[resource] = passes.get(resource, 0) + 1
    for resource, times in passes.items():
        if len(resource.flows) + times >= resource.least:
            slowest = max(slowest, times * size / resource.capacity)
    return slowest


@dataclass(frozen=True)
class RouteCosts:
    """Prices of blocks for policies (sim.hierarchy.offload.Costs), seconds with no link busy.

    recompute  seconds to compute `tokens` after a prefix of `start`
    source     name of the tier that the policy decides for
    stores     ways from it to the tiers behind it
    loads      ways from tiers to HBM
    """

    recompute: Callable[[int, int], float]
    source: str
    stores: Mapping[str, Route]
    loads: Mapping[str, Route]

    def recompute_s(self, start: int, tokens: int) -> float:
        return self.recompute(start, tokens)

    def load_s(self, tier: str, size: int) -> float:
        return alone_s(self.loads[tier], size)

    def store_s(self, source: str, target: str, size: int) -> float:
        return alone_s(self.stores[target], size)
