"""What a policy for several models on the same GPUs may see and say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from policies.fleet.base import FleetPolicy

Group = tuple[int, ...]
"""GPUs of one instance, by index: as many as the model's tensor parallelism, side by side on a node."""


@dataclass(frozen=True)
class ModelView:
    """One of the models that are served.

    gpus          of an instance
    shard_bytes   weights on each of them, in whole granules
    load_s        what loading them takes over idle links
    kv_bytes      KV of a token on each GPU of an instance
    share         its part of the requests, as the scenario states it
    """

    index: int
    name: str
    gpus: int
    shard_bytes: int
    load_s: float
    kv_bytes: int
    share: float


@dataclass(frozen=True)
class GpuView:
    """A GPU. serving: the model whose instance runs on it, None if it is idle. free: bytes that weights may take."""

    index: int
    node: int
    serving: int | None
    free: int


class Placed(NamedTuple):
    """Weights of a model on a group of GPUs, there or on their way: without an instance that runs (prewarmed)."""

    model: int
    group: Group


@dataclass(frozen=True)
class PoolView:
    """The GPUs of a cluster and what is on them. instances: by model, those that serve or start."""

    now_s: float
    models: Sequence[ModelView]
    gpus: Sequence[GpuView]
    prewarmed: Sequence[Placed]
    instances: Sequence[int]

    def groups(self, size: int) -> Iterable[Group]:
        """Groups that an instance of so many GPUs may have: side by side, aligned to their size, within a node."""
        for start in range(len(self.gpus) - size + 1):
            group = tuple(range(start, start + size))
            first = next(g.index for g in self.gpus if g.node == self.gpus[start].node)
            if (start - first) % size == 0 and self.gpus[group[-1]].node == self.gpus[start].node:
                yield group


class Prewarm(FleetPolicy, ABC):
    """Says which weights to load ahead of need.

    lends        weights may lie in memory for KV that an instance does not use now
    warm         engine processes are ready too, so that a start costs no `fleet.engine_init`
    keep_alive   seconds that an instance without requests is kept
    reclaims     an idle instance gives way to a model that has requests and no GPU, however long it is kept

    What a policy promises: `plan` returns groups of the view with room for the weights, none of a model that is on one
    of the GPUs already, and its answers follow from the calls alone.
    """

    window_s: float = 300.0
    """How often it is told of the load."""
    lends: bool = False
    warm: bool = False
    keep_alive: float = 0.0
    reclaims: ClassVar[bool] = False

    def observe(self, model: int, mean: float, peak: float) -> None:
        """Requests of a model in the system in the window that has ended: their mean and the most."""

    def plan(self, view: PoolView) -> Sequence[Placed]:
        """What to load now, in this order; asked once per `fleet.window`."""
        return ()

    def drop(self, view: PoolView) -> Sequence[Placed]:
        """What of `view.prewarmed` is to leave; asked before each plan."""
        return ()


class NoPrewarm(Prewarm):
    """Weights are loaded when an instance starts; an instance is stopped as the scaling policy says."""


class Sharing(FleetPolicy, ABC):
    """Says once which models share which GPUs for good, each with a part of the GPU and of the memory for KV."""

    @abstractmethod
    def place(self, view: PoolView) -> Sequence[Placed]:
        """Instances that serve from the start to the end; several models may be on a GPU."""
