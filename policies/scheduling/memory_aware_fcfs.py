"""By arrival, as far as memory will do."""

from __future__ import annotations

from policies.options import number
from policies.scheduling.base import QueueView, Scheduler


class MemoryAwareFirstCome(Scheduler):
    """By arrival, a request once memory will do for it and all running ones until they end, by their predicted outputs.

    Nobody gives way if predictions are exact; nobody overtakes.

    error   of predictions: standard deviation of log(predicted / true), 0 for exact ones

    Source: the benchmark of arXiv 2502.07115 (MC-Benchmark: the memory check of MC-SF in order of arrival).

    Complexity: O(k^2) in arrays for k running requests.
    """

    def __init__(self, *, error: float = 0.0) -> None:
        self.error = number("error", error, 0, 4)

    def choose(self, queue: QueueView) -> int | None:
        if not queue.running:
            return 0
        return 0 if queue.peak_tokens(queue.waiting[0]) <= queue.capacity_tokens else None
