"""A link with one copy engine: where transfers wait, and how long they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hw_profiles.cost_models import CopyModel, DeviceLink, LinkModel
from sim.clock import Clock
from sim.hierarchy.network import Flow, Network, Resource
from sim.hierarchy.transfer import Transfer
from sim.recorder import Recorder

Service = Callable[[int, int, int, bool], float]
"""service(size, copies, outstanding, idle): seconds of `size` bytes in `copies` when nothing is in the way.

outstanding   copies queued or in service when it starts, its own included (queue depth of a device)
idle          whether the engine had nothing to do before
"""
Model = LinkModel | CopyModel | DeviceLink | Service


def service_of(model: Model) -> Service:
    """How long an engine with this cost model takes. PCIe copies do not depend on the queue, devices do."""
    if isinstance(model, DeviceLink):
        return model.seconds
    if isinstance(model, LinkModel | CopyModel):
        seconds = model.seconds
        return lambda size, copies, _outstanding, _idle: seconds(size, copies)
    return model


class _Job:
    """A transfer that is queued or in service: so many separate copies, of which the first `at` have arrived."""

    __slots__ = ("at", "copies", "done", "per_turn", "queued", "start", "transfer")

    def __init__(self, transfer: Transfer, chunk: int | None, queued: float, done: Callable[[], None]) -> None:
        self.transfer = transfer
        self.done = done
        self.queued = queued
        self.start = -1.0
        self.at = 0
        self.copies = max(1, transfer.copies)
        self.per_turn = self.copies
        """Copies that it makes before it goes back to the end of the queue."""
        size = transfer.size
        if chunk is not None and size > chunk:
            # Copies longer than a chunk are split, each part with its own set-up time.
            self.copies = min(max(self.copies, -(-size // chunk)), size)
            self.per_turn = max(1, chunk * self.copies // size)

    def part(self, turns: int) -> tuple[int, int]:
        """(bytes, copies) of its next `turns` turns, or of what is left if that is less."""
        if not self.at and turns * self.per_turn >= self.copies:
            return self.transfer.size, self.copies
        copies = min(turns * self.per_turn, self.copies - self.at)
        size = self.transfer.size
        return size * (self.at + copies) // self.copies - size * self.at // self.copies, copies


class CopyEngine:
    """One direction of a GPU's link or of a device: a serial, non-preemptive server in order of submission.

    A transfer alone takes what the cost model says. Copy engines are serial per direction and ignore priorities
    (pytorch/torchrec pull requests 4303 and 4315). While it is in service a transfer shares the resources of `path`
    (the joint cap of both directions, the host's root complex, its DRAM) with other engines, max-min fairly.

    chunk_bytes   a longer transfer is served in parts of about this size and goes back to the end of the queue after
                  each, so that what comes later waits for one part of it; None: transfers are served whole
    pageable      bytes/s of copies from or to memory that is not pinned (a bounce buffer), for `Transfer.pageable`
    started       called when the engine turns from idle to busy
    """

    def __init__(
        self,
        name: str,
        replica: int,
        model: Model,
        path: tuple[Resource, ...],
        network: Network,
        clock: Clock,
        recorder: Recorder,
        *,
        chunk_bytes: int | None = None,
        pageable: float | None = None,
        started: Callable[[], None] | None = None,
    ) -> None:
        if chunk_bytes is not None and chunk_bytes < 1:
            raise ValueError(f"a chunk has at least one byte, not {chunk_bytes}")
        self.name = name
        self.replica = replica
        self.model = model
        self.path = path
        self.chunk_bytes = chunk_bytes
        self.pageable = pageable
        self.started = started
        self.busy = False
        """Whether anything is in service."""
        self.busy_s = 0.0
        self.bytes = 0
        """Bytes of the transfers that have arrived."""
        self._service = service_of(model)
        self._network = network
        self._clock = clock
        self._recorder = recorder
        self._queue: deque[_Job] = deque()
        self._outstanding = 0  # copies queued or in service
        # What is in service: a job's bytes and copies, since when, how long when nothing is in the way.
        self._job: _Job | None = None
        self._flow: Flow | None = None
        self._size = 0
        self._copies = 0
        self._since = 0.0
        self._work = 0.0
        self._partial = 0  # bytes of the served parts of transfers that have not arrived whole

    def change_model(self, model: Model) -> None:
        """Transfers that begin from now on take what another cost model says."""
        self.model = model
        self._service = service_of(model)

    # ---- what it knows

    def service_s(self, transfer: Transfer) -> float:
        """Seconds that the transfer takes when no other is in its way, on an engine that was idle."""
        job = _Job(transfer, self.chunk_bytes, 0.0, _nothing)
        return self._part_s(transfer, transfer.size, job.copies, job.copies, idle=True)

    def backlog_s(self) -> float:
        """Seconds until a transfer submitted now would start if nothing else came, all at their own paces."""
        return self._ahead_s(1, 0)

    def estimate_s(self, size: int, copies: int, pageable: int = 0) -> float:
        """Seconds until a transfer submitted now would have arrived if nothing else came, all at their own paces.

        With chunks it takes turns with those before it.
        """
        transfer = Transfer("", "", size, copies, "", pageable)
        job = _Job(transfer, self.chunk_bytes, 0.0, _nothing)
        turns = -(-job.copies // job.per_turn)
        own = self._part_s(transfer, size, job.copies, job.copies, idle=not self.busy)
        return self._ahead_s(turns, job.copies) + own

    def moved(self, now: float) -> float:
        """Bytes that have moved until `now` (not before the last event), the share of those in service included."""
        total = float(self.bytes + self._partial)
        if self._flow is not None:
            total += self._size * (1.0 - self._network.left_s(self._flow, now) / self._work)
        return total

    def served(self, now: float) -> float:
        """Seconds until `now` (not before the last event) in which anything was in service."""
        return self.busy_s + (now - self._since if self.busy else 0.0)

    def _ahead_s(self, turns: int, joining: int) -> float:
        """Seconds at own paces until the last of the `turns` turns of a transfer of `joining` copies submitted now."""
        if self._flow is None or self._job is None:
            return 0.0
        wait = self._network.left_s(self._flow, self._clock.now)
        outstanding = self._outstanding + joining - self._copies
        for job in self._queue:
            size, copies = job.part(turns)
            wait += self._part_s(job.transfer, size, copies, outstanding, idle=False)
            outstanding -= copies
        job = self._job  # what is left of it comes behind
        if turns > 1 and job.at + self._copies < job.copies:
            size, copies = job.part(turns)
            rest = copies - self._copies
            if rest > 0:
                wait += self._part_s(job.transfer, size - self._size, rest, outstanding, idle=False)
        return wait

    def _part_s(self, transfer: Transfer, size: int, copies: int, outstanding: int, *, idle: bool) -> float:
        """Seconds of so many bytes and copies of a transfer when nothing is in the way."""
        seconds = self._service(size, copies, outstanding, idle)
        if transfer.pageable:
            if self.pageable is None:
                raise ValueError(f"{self.name} has no rate for memory that is not pinned")
            share = transfer.pageable / transfer.size
            seconds += max(0.0, share * (size / self.pageable - seconds))
        return seconds

    # ---- what it does

    def submit(self, transfer: Transfer, done: Callable[[], None]) -> None:
        """Queue the transfer now; `done()` is called when its last byte has arrived."""
        job = _Job(transfer, self.chunk_bytes, self._clock.now, done)
        self._outstanding += job.copies
        self._queue.append(job)
        if self._job is None:
            self._serve(idle=True)

    def _serve(self, *, idle: bool) -> None:
        """Take up the next turn of the job at the head of the queue."""
        job = self._job = self._queue.popleft()
        self.busy = True
        now = self._since = self._clock.now
        if job.start < 0:
            job.start = now
        self._size, self._copies = job.part(1)
        self._work = self._part_s(job.transfer, self._size, self._copies, self._outstanding, idle=idle)
        if idle and self.started is not None:
            self.started()
        path = (*self.path, *job.transfer.via) if job.transfer.via else self.path
        self._flow = self._network.start(now, path, self._size, self._work, self._arrived)

    def _arrived(self) -> None:
        job, end = self._job, self._clock.now
        assert job is not None
        self.busy_s += end - self._since
        self._outstanding -= self._copies
        job.at += self._copies
        self._job = self._flow = None
        self.busy = False
        if job.at < job.copies:
            self._partial += self._size
            self._queue.append(job)
            self._serve(idle=False)
            return
        transfer = job.transfer
        self._partial -= transfer.size - self._size
        self.bytes += transfer.size
        src, dst, size, copies, reason, _, _ = transfer
        row = self.name, self.replica, src, dst, size, copies, job.queued, job.start, end, reason
        self._recorder.transfers.append(row)
        if self._queue:
            self._serve(idle=False)
        job.done()


def _nothing() -> None:
    pass
