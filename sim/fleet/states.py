"""Who is on, and since when: the account of replica-seconds."""

from __future__ import annotations

from policies.fleet.base import ReplicaState
from sim.clock import Clock


class States:
    """States of replicas, and the seconds that each of them has spent in each."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.seconds = [dict.fromkeys(ReplicaState, 0.0) for _ in range(count)]
        self.starts = 0
        """Starts that were begun, those of the beginning not counted."""
        self.stops = 0
        """Times that a replica that had served was turned off."""
        self.cancelled = 0
        """Starts that were given up."""
        self.kept = 0
        """Times that a draining replica was taken back."""
        self.start_s: list[float] = []
        """What each start took that led to service."""
        self._clock = clock
        self._state = [ReplicaState.OFF] * count
        self._since = [0.0] * count
        self._closed = False

    def __getitem__(self, index: int) -> ReplicaState:
        return self._state[index]

    def since(self, index: int) -> float:
        """When the replica came into its state, s."""
        return self._since[index]

    def indices(self, *states: ReplicaState) -> list[int]:
        """Replicas in these states."""
        return [index for index, state in enumerate(self._state) if state in states]

    def set(self, index: int, state: ReplicaState) -> None:
        """The replica is in this state from now on."""
        now, before = self._clock.now, self._state[index]
        if not self._closed:
            self.seconds[index][before] += now - self._since[index]
            if before is ReplicaState.STARTING and state is ReplicaState.SERVING:
                self.start_s.append(now - self._since[index])
        self._state[index], self._since[index] = state, now

    def close(self) -> None:
        """The last request has ended: what comes after it costs nothing."""
        for index, state in enumerate(self._state):
            self.set(index, state)
        self._closed = True

    def total(self, *states: ReplicaState) -> float:
        """Replica-seconds in these states, once closed."""
        return sum(seconds[state] for seconds in self.seconds for state in states)
