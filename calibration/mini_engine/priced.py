"""An executor that executes nothing: steps and copies take what a profile says.

The mini engine then is a simulator, which must agree with kvsim's; predictions of measured steps come from here too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from calibration.mini_engine.sequence import StepPlan
from calibration.mini_engine.transfers import Copy
from sim.cost.step import StepCost

CopySeconds = Callable[[str, int], float]
"""(direction, pages) -> seconds of one transfer alone."""


def step_seconds(cost: StepCost, decodes: int, context: int, rows: int, chunks: Sequence[tuple[int, int]]) -> float:
    """Seconds of a step: `decodes` sequences that attend `context` tokens in all; chunks (tokens, tokens before);
    `rows` tokens are sampled."""
    if not chunks:
        return float(cost.decode_steps(decodes, context, (), 1).seconds)
    tokens = decodes + sum(count for count, _ in chunks)
    return float(cost.mixed_step(decodes, context, (), list(chunks), tokens, rows).seconds)


class PricedExecutor:
    """`seconds` prices a step, `copy_seconds` a transfer; each direction is one engine that serves in order."""

    def __init__(self, seconds: Callable[[StepPlan], float], copy_seconds: CopySeconds) -> None:
        self._seconds = seconds
        self._copy_seconds = copy_seconds
        self._queue: deque[tuple[float, Copy]] = deque()
        self._free = {"h2d": 0.0, "d2h": 0.0}

    @property
    def copying(self) -> bool:
        """Whether a copy is under way."""
        return bool(self._queue)

    def submit(self, copies: Sequence[Copy], now: float) -> None:
        """Start copies."""
        for copy in copies:
            end = max(now, self._free[copy.direction]) + self._copy_seconds(copy.direction, len(copy.pages))
            self._free[copy.direction] = end
            self._queue.append((end, copy))
        self._queue = deque(sorted(self._queue, key=lambda entry: entry[0]))

    def deliver(self, now: float) -> dict[str, int]:
        """Tell what has arrived."""
        pages: dict[str, int] = {}
        while self._queue and self._queue[0][0] <= now:
            _, copy = self._queue.popleft()
            copy.done()
            pages[copy.direction] = pages.get(copy.direction, 0) + len(copy.pages)
        return pages

    def run(self, plan: StepPlan, now: float) -> float:
        """The end of a step."""
        return now + self._seconds(plan)

    def wait(self, now: float, until: float) -> float:
        """When the next copy arrives, or `until`."""
        return min(until, self._queue[0][0])
