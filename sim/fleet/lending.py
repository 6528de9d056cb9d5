"""Memory for KV that a running instance does not use, lent to the weights of other models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from policies.fleet.prewarm import Placed
from sim.clock import Clock
from sim.fleet.gateway import requests
from sim.fleet.instances import Instance
from sim.fleet.parts import GRANULE
from sim.invariants import ensure

if TYPE_CHECKING:
    from sim.fleet.lifecycle import Lifecycle


class Lending:
    """Who lends how much: an instance with r of its `most` requests may lend all but (r + 1) / most of its memory.

    SOURCE: LLMServe/WarmServe, prewarm_manager.py, _check_engines (blocks in proportion to requests / 32; the one more
    is ours, so that the next request finds room). What is lent is taken between two steps, in whole granules, and given
    back when requests need it: the weights in it are dropped, at the next window (`fleet.window`).
    """

    def __init__(self, life: Lifecycle, clock: Clock, most: int) -> None:
        self.peak = 0
        """Most bytes lent on one GPU."""
        self._life = life
        self._clock = clock
        self._most = most

    def spare(self, instance: Instance) -> int:
        """Bytes of each GPU's memory for KV that weights may lie in, those that do included."""
        needed = min(1.0, (requests(instance.replica) + 1) / self._most)
        whole = instance.part.kv_bytes
        return max(0, int((1 - needed) * whole)) // GRANULE * GRANULE

    def borrow(self, placed: Placed, there: Callable[[], None]) -> None:
        """Take memory for weights on GPUs of the group; `there()` when all of it is free."""
        from_whom = self._lenders(placed.group)
        if not from_whom:
            there()
            return
        waits = len(from_whom)

        def shrunk() -> None:
            nonlocal waits
            waits -= 1
            if not waits:
                there()

        for instance in from_whom:
            instance.replica.between_steps(partial(self._shrink, instance, placed, shrunk))

    def settle(self, gpus: Iterable[int]) -> None:
        """Weights have left these GPUs: who lent has its memory again, from its next step on."""
        for instance in self._lenders(gpus):
            if instance.lent:
                instance.replica.between_steps(partial(self._give, instance))

    def give_back(self) -> None:
        """Drop weights in memory that requests are about to need."""
        for index in {index for index in self._life.running if index is not None}:
            instance = self._life.instances[index]
            while self._lent(instance) > self.spare(instance):
                others = [p for p in self._life.residency.on(instance.placed.group) if p != instance.placed]
                self._life.unused += 1
                self._life.residency.drop(others[-1])
                self.settle(others[-1].group)

    def _lenders(self, gpus: Iterable[int]) -> list[Instance]:
        indices = dict.fromkeys(i for gpu in gpus if (i := self._life.running[gpu]) is not None)
        return [self._life.instances[i] for i in indices]

    def _lent(self, instance: Instance) -> int:
        """Bytes on its fullest GPU that weights of others lie in, or are to."""
        own, residency = instance.placed, self._life.residency
        return max(residency.bytes_on(gpu, own) for gpu in own.group)

    def _shrink(self, instance: Instance, placed: Placed, then: Callable[[], None]) -> None:
        if placed not in self._life.residency.held:
            return
        if self._resize(instance):
            then()
        else:
            self._life.unused += 1
            self._life.residency.drop(placed)

    def _give(self, instance: Instance) -> None:
        self._resize(instance)

    def _resize(self, instance: Instance) -> bool:
        """Bring the memory of an instance to what is not lent; False if its requests hold too much of it."""
        if not self._runs(instance):
            return True  # it has stopped meanwhile
        lent, hbm = self._lent(instance), instance.hbm
        block = instance.part.inputs.budget.block_bytes
        blocks = max(0, instance.part.kv_bytes - lent) // block
        capacity = instance.full * blocks // (instance.part.kv_bytes // block)
        if capacity < hbm.pinned + hbm.reserved:
            return False
        hbm.make_room(hbm.capacity - capacity)
        hbm.capacity, instance.lent = capacity, lent
        self.peak = max(self.peak, lent)
        return True

    def _runs(self, instance: Instance) -> bool:
        return self._life.running[instance.placed.group[0]] == instance.replica.index

    def check(self) -> None:
        """Nobody holds more than it has."""
        for index in {index for index in self._life.running if index is not None}:
            instance = self._life.instances[index]
            ensure(instance.hbm.capacity <= instance.full, f"instance {index} has more memory than there is")
            ensure(instance.lent <= instance.part.kv_bytes, f"instance {index} lent more than it has")
