"""Memory-constrained shortest first."""

from __future__ import annotations

from policies.scheduling.base import QueueView
from policies.scheduling.shortest_first import ShortestFirst


class MemoryConstrainedShortestFirst(ShortestFirst):
    """The request with the fewest predicted output tokens, once memory will do for it and all running ones.

    "Will do": at every time at which a running request is predicted to end, and at its own, what all of them hold by
    then fits HBM. The first that does not fit stops the admission, so nobody skips ahead of it. With exact predictions
    nobody ever gives way. Long answers may starve while shorter ones keep coming: `aging` bounds that.

    error   of predictions: standard deviation of log(predicted / true), 0 for exact ones
    aging   tokens per second by which a request that waits grows shorter, as of `shortest_first`

    Source: Jaillet et al., Online Scheduling for LLM Inference with KV Cache Constraints (arXiv 2502.07115), MC-SF. Its
    rounds are here the events after which the engine asks; prompts that take several steps, blocks, shared prefixes
    and loads, which it does not have, are counted so that the promise holds.

    Complexity: O(k^2) in arrays for k running requests.
    """

    def choose(self, queue: QueueView) -> int | None:
        if not queue.running:
            return 0
        return 0 if queue.peak_tokens(queue.waiting[0]) <= queue.capacity_tokens else None
