"""Whose weights are in which GPU's memory, or on their way there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from policies.fleet.prewarm import Placed
from sim.clock import Clock
from sim.fleet.weights import WeightLoad
from sim.hierarchy.link import CopyEngine


@dataclass
class Residence:
    """Weights on a group of GPUs. waiting: calls for when they are all there; asked: before loads begin."""

    loads: list[WeightLoad] = field(default_factory=list)
    missing: int = 0
    ready: bool = False
    gone: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Residency:
    """Weights by model and group; each GPU of a group has a shard.

    shard_bytes, pieces: by model. link: the host link of a GPU.
    """

    def __init__(
        self, clock: Clock, shard_bytes: list[int], pieces: list[int], link: Callable[[int], CopyEngine]
    ) -> None:
        self.held: dict[Placed, Residence] = {}
        self.loaded_bytes = 0
        """Bytes of shards whose load was begun."""
        self._clock = clock
        self._shard = shard_bytes
        self._pieces = pieces
        self._link = link

    def on(self, gpus: Iterable[int]) -> list[Placed]:
        """What is on any of these GPUs."""
        wanted = set(gpus)
        return [placed for placed in self.held if not wanted.isdisjoint(placed.group)]

    def bytes_on(self, gpu: int, but: Placed | None = None) -> int:
        """Bytes of weights on a GPU, those of `but` left out."""
        return sum(self._shard[p.model] for p in self.held if gpu in p.group and p != but)

    def add(self, placed: Placed) -> Residence:
        """Take the memory for weights; `load` begins to fill it."""
        found = self.held[placed] = Residence(missing=len(placed.group))
        return found

    def load(self, placed: Placed) -> None:
        """Bring the weights to all GPUs of the group, over the link of each."""
        residence = self.held[placed]

        def came() -> None:
            residence.missing -= 1
            if not residence.missing and not residence.gone:
                residence.ready = True
                for call in residence.waiting:
                    call()

        size = self._shard[placed.model]
        for gpu in placed.group:
            self.loaded_bytes += size
            pieces = self._pieces[placed.model]
            residence.loads.append(WeightLoad(self._clock, self._link(gpu), size, pieces, None, came))

    def drop(self, placed: Placed) -> None:
        """Its memory is free; a load under way ends with its piece."""
        residence = self.held.pop(placed)
        residence.gone = True
        for load in residence.loads:
            load.cancel()
