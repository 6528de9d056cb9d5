"""What a scaling policy may see and say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class ReplicaState(Enum):
    """What a replica is doing. It costs money in all states but OFF."""

    OFF = "off"
    STARTING = "starting"
    """Its weights are being loaded, or its engine makes ready."""
    SERVING = "serving"
    DRAINING = "draining"
    """It finishes the requests that it has and gets no more."""


@dataclass(frozen=True)
class ReplicaStatus:
    """One replica at the end of a window.

    since_s          when it came into this state
    running, waiting requests in its batch and in its queue
    kv_use           share of its memory for KV that requests hold
    """

    index: int
    state: ReplicaState
    since_s: float
    running: int
    waiting: int
    kv_use: float


@dataclass(frozen=True)
class FleetWindow:
    """What happened since the policy was asked last, over all replicas.

    now_s, window_s  simulated time, and the length of the window
    arrived, finished, missed   requests; `missed` of the finished ones their own `slo` bound (0 without one)
    load, peak       mean and most requests in the system: running, queued, and waiting at the gateway
    waiting          requests at the gateway now, since no replica takes them
    replicas         all of them, whatever their state, by index
    least, most      replicas that are to be on
    start_s          what a start takes
    """

    now_s: float
    window_s: float
    arrived: int
    finished: int
    missed: int
    load: float
    peak: int
    waiting: int
    replicas: Sequence[ReplicaStatus]
    least: int
    most: int
    start_s: float

    @property
    def on(self) -> int:
        """Replicas that serve or are about to."""
        return sum(r.state in (ReplicaState.SERVING, ReplicaState.STARTING) for r in self.replicas)


class Start(NamedTuple):
    """Start a replica that is off, or keep one that drains."""

    replica: int


class Stop(NamedTuple):
    """Drain a replica, then turn it off; one that is starting is off at once."""

    replica: int


class FleetPolicy:
    """A policy of the family `fleet`."""


class Scaling(FleetPolicy, ABC):
    """Says how many replicas are on, once per window.

    What a policy promises: `plan` returns a whole number of replicas, 0 or more, or some `Start` and `Stop`, each
    replica once, and changes nothing that it is shown; its answers follow from the calls alone. The number is brought
    within `least` and `most`. Of a number: who drains is kept before anybody is started, the lowest index is started;
    who is starting is given up before anybody drains, and of those that serve the one with the fewest requests drains.
    """

    @abstractmethod
    def plan(self, window: FleetWindow) -> int | Iterable[Start | Stop]:
        """The number of replicas that are to be on from now on, or what to do with which."""
