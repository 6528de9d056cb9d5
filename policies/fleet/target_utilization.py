"""As many replicas as keep the requests in the system near a share of what they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import ceil

from policies.fleet.base import FleetWindow, ReplicaState, Scaling, Start, Stop
from policies.options import number, seconds, whole


class TargetUtilization(Scaling):
    """Scales out above `upper` and in below `lower` of `requests` per replica, to what brings it back to that bound.

    requests       requests that a replica is full with
    lower, upper   shares of them
    protect        a replica is not drained before it has been serving for this long (a start may be given up)
    stabilization  scale in only to the most that was wanted within this time

    Source: LLMServe/WarmServe, vllm/entrypoints/controller/common.py and prewarm_manager.py (_check_engines): .5, .8,
    32 requests, 5 s, of the mean load of 5 s (`fleet.window`). Kubernetes' horizontal pod autoscaler has one target in
    the place of two bounds and a stabilization window of 300 s (kubernetes.io, Horizontal Pod Autoscaling).
    """

    def __init__(
        self,
        *,
        requests: int = 32,
        lower: float = 0.5,
        upper: float = 0.8,
        protect: float | str = 5.0,
        stabilization: float | str = 0.0,
    ) -> None:
        self._requests = whole("requests", requests, 1, 1_000_000)
        self._upper = number("upper", upper, 0, 1, above=True)
        self._lower = number("lower", lower, 0, self._upper, above=True)
        self._protect = seconds("protect", protect)
        self._stabilization = seconds("stabilization", stabilization)
        self._wanted: deque[tuple[float, int]] = deque()

    def plan(self, window: FleetWindow) -> int | Iterable[Start | Stop]:
        on, full = window.on, window.on * self._requests
        wanted = on
        if window.load > self._upper * full:
            wanted = ceil(window.load / self._upper / self._requests)
        elif window.load < self._lower * full:
            wanted = ceil(window.load / self._lower / self._requests)
        wanted = self._stable(window, wanted)
        wanted = min(window.most, max(window.least, wanted))
        if wanted >= on:
            return wanted
        starting = [r for r in window.replicas if r.state is ReplicaState.STARTING]
        starting.sort(key=lambda r: -r.since_s)
        old = [
            r for r in window.replicas if r.state is ReplicaState.SERVING and window.now_s - r.since_s >= self._protect
        ]
        old.sort(key=lambda r: (r.running + r.waiting, -r.index))
        return [Stop(r.index) for r in [*starting, *old][: on - wanted]]

    def _stable(self, window: FleetWindow, wanted: int) -> int:
        self._wanted.append((window.now_s, wanted))
        while self._wanted[0][0] < window.now_s - self._stabilization:
            self._wanted.popleft()
        return max(number for _, number in self._wanted)
