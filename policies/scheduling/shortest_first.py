"""The shortest answer first."""

from __future__ import annotations

from policies.options import number
from policies.scheduling.base import QueueView, Scheduler, WaitingRequest


class ShortestFirst(Scheduler):
    """The request with the fewest predicted output tokens, as soon as the first chunk of its prompt has room.

    Means fall, and long answers may starve while shorter ones keep coming: `aging` bounds that. Memory is not looked
    at, so requests give way as under `fcfs`.

    error   of predictions: standard deviation of log(predicted / true), 0 for exact ones
    aging   tokens per second by which a request that waits grows shorter: one that came t seconds earlier goes first
            unless the other is more than aging * t tokens shorter; 0: never, large values: by arrival

    Source: shortest job first by predicted output; with aging as in the classic remedy for starvation.

    Complexity: O(log n) for n waiting requests.
    """

    def __init__(self, *, error: float = 0.0, aging: float = 0.0) -> None:
        self.error = number("error", error, 0, 4)
        self._aging = number("aging", aging, 0)

    def rank(self, request: WaitingRequest) -> float:
        # predicted - aging * (now - arrival), less what is the same for all
        return request.predicted_tokens + self._aging * request.arrival_s

    def choose(self, queue: QueueView) -> int | None:
        return 0
