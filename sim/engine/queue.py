"""The order in which requests wait, and who gives way when memory is short."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Literal

from sim.engine.sequence import Sequence

Scheduling = Literal["fcfs", "priority", "static"]

_PLACES = 1 << 48
"""More than there are requests: places in the queue within a priority."""
_place: Callable[[Sequence], int] = attrgetter("queued")


class Waiting(deque[Sequence]):
    """Requests that wait to be looked up, in order of arrival; a preempted one is put in front.

    Sets `Sequence.queued`, by which waiting and loaded requests are ordered. SOURCE: vLLM v1, FCFSRequestQueue and the
    preemption in Scheduler.schedule (vllm/v1/core/sched/request_queue.py, scheduler.py).
    """

    def __init__(self) -> None:
        super().__init__()
        self._enqueued = 0

    def arrive(self, seq: Sequence) -> None:
        """A new request."""
        self.number(seq)
        self.append(seq)

    def number(self, seq: Sequence) -> None:
        """Give a request the place in the order of arrival that comes next."""
        seq.queued = self._enqueued
        self._enqueued += 1

    def put_back(self, seq: Sequence) -> None:
        """A request that gave way."""
        self.appendleft(seq)

    def order(self, seq: Sequence) -> tuple[float, int]:
        """What requests wait in the order of, lower ones first."""
        return 0.0, seq.queued

    def behind_head(self, order: tuple[float, int]) -> float:
        """How far behind the head of the queue a request of that order is."""
        return float(max(0, order[1] - self[0].queued))

    @staticmethod
    def victim(running: dict[int, Sequence]) -> Sequence:
        """Who gives way: the newest in the batch."""
        return next(reversed(running.values()))


class ByPriority(Waiting):
    """The same by priority, lower values first, then by arrival, wherever a request comes from.

    Who gives way is the last in that order of those in the batch. A waiting request takes nobody's place.
    SOURCE: vLLM v1, PriorityRequestQueue and Scheduler.schedule (max of priority and arrival time).
    """

    def arrive(self, seq: Sequence) -> None:
        """A new request."""
        self.number(seq)
        insort(self, seq, key=_place)

    def number(self, seq: Sequence) -> None:
        """Give a request its place in the order."""
        seq.queued = seq.priority * _PLACES + self._enqueued
        self._enqueued += 1

    def put_back(self, seq: Sequence) -> None:
        """A request that gave way has the place again that it had."""
        insort(self, seq, key=_place)

    @staticmethod
    def victim(running: dict[int, Sequence]) -> Sequence:
        """Who gives way: the last by priority and arrival."""
        return max(running.values(), key=_place)


class Requeued(Waiting):
    """Requests in order of arrival; one that gave way queues again behind all."""

    def put_back(self, seq: Sequence) -> None:
        """A request that gave way."""
        self.arrive(seq)


class Ranked(Waiting):
    """Requests in ascending order of a key, wherever they come from."""

    def __init__(self, key: Callable[[Sequence], tuple[float, int]]) -> None:
        super().__init__()
        self._key = key

    def arrive(self, seq: Sequence) -> None:
        """A new request."""
        seq.queued = self._enqueued
        self._enqueued += 1
        insort(self, seq, key=self._key)

    def put_back(self, seq: Sequence) -> None:
        """A request that gave way has the place of its key."""
        insort(self, seq, key=self._key)

    def order(self, seq: Sequence) -> tuple[float, int]:
        """Its key."""
        return self._key(seq)

    def behind_head(self, order: tuple[float, int]) -> float:
        """Requests that wait ahead of one of that key."""
        return float(bisect_left(self, order, key=self._key))


QUEUES: dict[Scheduling, type[Waiting]] = {"fcfs": Waiting, "priority": ByPriority, "static": Waiting}
