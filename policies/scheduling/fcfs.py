"""By arrival."""

from __future__ import annotations

from policies.scheduling.base import QueueView, Scheduler


class FirstCome(Scheduler):
    """By arrival, as soon as the first chunk of the prompt has room; one that gave way goes first.

    What vLLM does without a policy (`engine.scheduling: fcfs`), to compare others with.

    Source: vLLM v1, vllm/v1/core/sched/scheduler.py.

    Complexity: O(1).
    """

    def choose(self, queue: QueueView) -> int | None:
        return 0
