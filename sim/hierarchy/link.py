"""A link with one copy engine: where transfers wait, and how long they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hw_profiles.cost_models import CopyModel, DeviceLink, LinkModel
from sim.clock import Clock
from sim.hierarchy.network import Network, Resource
from sim.hierarchy.transfer import Transfer
from sim.recorder import Recorder


class CopyEngine:
    """One direction of one GPU's link: a serial, non-preemptive server in order of submission.

    A transfer alone takes copies x alpha + bytes / beta (alpha-beta model per copy). Copy engines are serial per
    direction and ignore priorities (pytorch/torchrec pull requests 4303 and 4315). While it is in service it shares the
    resources of `path` (the joint cap of both directions, the host's root complex, its DRAM) with other engines,
    max-min fairly.
    """

    def __init__(
        self,
        name: str,
        replica: int,
        model: LinkModel | CopyModel | DeviceLink,
        path: tuple[Resource, ...],
        network: Network,
        clock: Clock,
        recorder: Recorder,
    ) -> None:
        self.name = name
        self.replica = replica
        self.model = model
        self.path = path
        self.busy_s = 0.0
        self.bytes = 0
        self._network = network
        self._clock = clock
        self._recorder = recorder
        self._queue: deque[tuple[Transfer, float, Callable[[], None]]] = deque()
        self._serving = False
        self._outstanding = 0
        """Copies queued or in service: the queue depth that a device sees."""

    def service_s(self, transfer: Transfer) -> float:
        """Seconds that the transfer takes when no other is in its way."""
        if isinstance(self.model, DeviceLink):
            return self.model.seconds(transfer.size, transfer.copies, transfer.copies)
        return self.model.seconds(transfer.size, transfer.copies)

    def _now_s(self, transfer: Transfer, *, idle: bool) -> float:
        """`service_s` as things are: a device works the faster the more copies it has to choose from, and its latency
        hides behind what it did before."""
        if isinstance(self.model, DeviceLink):
            return self.model.seconds(transfer.size, transfer.copies, self._outstanding, idle)
        return self.model.seconds(transfer.size, transfer.copies)

    def submit(self, transfer: Transfer, done: Callable[[], None]) -> None:
        """Queue the transfer now; `done()` is called when its last byte has arrived."""
        self._queue.append((transfer, self._clock.now, done))
        self._outstanding += transfer.copies
        if not self._serving:
            self._serve(idle=True)

    def _serve(self, *, idle: bool) -> None:
        transfer, queued, done = self._queue.popleft()
        self._serving = True
        start = self._clock.now

        def arrived() -> None:
            end = self._clock.now
            self.busy_s += end - start
            self.bytes += transfer.size
            self._recorder.transfer(self.name, self.replica, transfer, queued, start, end)
            self._serving = False
            self._outstanding -= transfer.copies
            if self._queue:
                self._serve(idle=False)
            done()

        self._network.start(start, self.path, transfer.size, self._now_s(transfer, idle=idle), arrived)
