"""The instances of several models as replicas: made up front, each on GPUs of its own or shared ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from policies.fleet.prewarm import Placed
from sim.clock import Clock
from sim.engine.replica import Replica
from sim.engine.sequence import Sequence as Seq
from sim.fleet.parts import Part
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.tier import Tier
from sim.recorder import Recorder
from sim.replicas import make_batch


@dataclass
class Instance:
    """One instance of a model. lent: bytes of each of its GPUs' KV memory that other models' weights lie in."""

    replica: Replica
    part: Part
    placed: Placed
    hbm: Tier
    full: int
    """Its memory for KV on all its GPUs when nothing is lent, bytes."""
    lent: int = 0
    idle_since: float = 0.0


def make_instances(
    parts: Sequence[Part],
    clock: Clock,
    recorder: Recorder,
    ended: Callable[[Seq], None],
    link: Callable[[int], CopyEngine],
    *,
    single_step: bool,
) -> list[Instance]:
    """All instances, by index. Copies to a GPU slow whoever runs there."""
    found: list[Instance] = []
    started: dict[CopyEngine, list[Callable[[], None]]] = {}
    for part in parts:
        for place, group in enumerate(part.groups):
            index = part.first + place
            cache = part.topology.cache(index)
            batch = make_batch(part.scenario.spec.engine, part.inputs, part.cost, cache, f"replica {index}")
            links = [link(gpu) for gpu in group]
            for each in links:
                each.started = None
            replica = Replica(index, clock, part.cost, batch, recorder, ended, links=links, single_step=single_step)
            for each in links:
                if each.started is not None:
                    started.setdefault(each, []).append(each.started)
            placed = Placed(part.model, group)
            found.append(Instance(replica, part, placed, cache.hbm, cache.hbm.capacity))
    for each, calls in started.items():
        each.started = _all(calls)
    return found


def _all(calls: list[Callable[[], None]]) -> Callable[[], None]:
    def call() -> None:
        for each in calls:
            each()

    return call
