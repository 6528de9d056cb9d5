"""The executor that really executes: steps on the device, page copies between its pool and the pinned one.

On a GPU copies run on streams of their own, by copy engine or by copy kernel, beside the steps; the clock is the
host's. On the CPU a copy runs when it is submitted, its time is measured and not charged to the steps, and it counts as
under way for so long, one after the other in each direction: as an ideal copy engine.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from calibration.mini_engine.gpu_copies import GpuCopies
from calibration.mini_engine.model import DeviceModel
from calibration.mini_engine.sequence import StepPlan
from calibration.mini_engine.steps import StepRunner
from calibration.mini_engine.transfers import Copy

POLL_S = 20e-6


@dataclass
class _Flight:
    """A copy under way: its end on the clock (CPU), or the event that follows it (GPU)."""

    copy: Copy
    end: float
    event: Any = None


class DeviceExecutor:
    """method: how pages are copied. synchronous: nothing else runs while they are.

    Times are those of the host since the last step ended, scheduling included. `host_s` collects the part of every step
    before its work was submitted.
    """

    def __init__(
        self, model: DeviceModel, runner: StepRunner, *, method: str = "loop", synchronous: bool = False
    ) -> None:
        self.host_s: list[float] = []
        self.keep = False
        """Remember `outputs`."""
        self._kept: dict[tuple[int, int], torch.Tensor] = {}
        self._model = model
        self._runner = runner
        self._lab = model.lab
        self._synchronous = synchronous
        self._flights: dict[str, deque[_Flight]] = {"h2d": deque(), "d2h": deque()}
        self._now = 0.0
        self._excluded = 0.0
        self._mark = self._real()
        self._mover = None if self._lab.cpu else GpuCopies(model, method)

    @property
    def outputs(self) -> dict[tuple[int, int], torch.Tensor]:
        """Hidden numbers of the last token of every prompt, by (request, position)."""
        return {key: tensor.float().cpu() for key, tensor in self._kept.items()}

    # ---- clock

    def _real(self) -> float:
        """Seconds of the host's clock that count."""
        return self._lab.clock() - self._excluded

    def _since(self, now: float) -> float:
        """Real seconds since `now`: since the last call that gave it, or none if idle time was skipped."""
        if now != self._now:
            self._now, self._mark = now, self._real()
        return self._real() - self._mark

    def _reached(self, now: float) -> float:
        self._now, self._mark = now, self._real()
        return now

    # ---- Executor

    @property
    def copying(self) -> bool:
        """Whether a copy is under way."""
        return any(self._flights.values())

    def submit(self, copies: Sequence[Copy], now: float) -> None:
        """Start copies."""
        for copy in copies:
            if self._mover is not None:
                self._flights[copy.direction].append(_Flight(copy, 0.0, self._mover.start(copy)))
            else:
                self._copy_now(copy, now)
        if self._synchronous and copies:
            self._lab.synchronize()

    def _copy_now(self, copy: Copy, now: float) -> None:
        started = self._lab.clock()
        source, target = (
            (self._model.host, self._model.pool) if copy.direction == "h2d" else (self._model.pool, self._model.host)
        )
        for origin, place in copy.pages:
            target[place].copy_(source[origin])
        seconds = self._lab.clock() - started
        queue = self._flights[copy.direction]
        if self._synchronous:
            queue.append(_Flight(copy, now))
        else:
            self._excluded += seconds
            queue.append(_Flight(copy, max(now, queue[-1].end if queue else now) + seconds))

    def deliver(self, now: float) -> dict[str, int]:
        """Tell what has arrived."""
        pages: dict[str, int] = {}
        arrived = []
        for direction, queue in self._flights.items():
            while queue and self._has_arrived(queue[0], now):
                arrived.append(queue.popleft())
                pages[direction] = pages.get(direction, 0) + len(arrived[-1].copy.pages)
        for flight in sorted(arrived, key=lambda flight: flight.end):
            flight.copy.done()
        return pages

    def _has_arrived(self, flight: _Flight, now: float) -> bool:
        return bool(flight.event.query()) if flight.event is not None else flight.end <= now

    def run(self, plan: StepPlan, now: float) -> float:
        """Execute a step; when it has ended."""
        ready = self._runner.prepare(plan)
        before = self._since(now)
        hidden = self._runner.run(ready)
        self._lab.synchronize_compute()
        end = now + self._since(now)
        self.host_s.append(before)
        if self.keep:
            self._keep(plan, hidden)
        return self._reached(end)

    def wait(self, now: float, until: float) -> float:
        """When the next copy arrives, or `until` if that is earlier."""
        if self._mover is None:
            return self._reached(min(until, *(queue[0].end for queue in self._flights.values() if queue)))
        self._since(now)
        while not any(queue and queue[0].event.query() for queue in self._flights.values()):
            if now + self._since(now) >= until:
                return self._reached(until)
            time.sleep(POLL_S)
        return self._reached(now + self._since(now))

    def _keep(self, plan: StepPlan, hidden: torch.Tensor) -> None:
        """Remember what the last token of every finished prompt became: on the device, not to wait behind copies."""
        row = len(plan.decodes)
        for chunk in plan.chunks:
            row += chunk.tokens
            if not chunk.sequence.prompt_left:
                key = (chunk.sequence.request.index, chunk.sequence.request.input_tokens - 1)
                self._kept[key] = hidden[row - 1].clone()
