"""The loop of the mini engine: arrivals, the scheduler's decisions, and an executor that carries them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from calibration.mini_engine.scheduler import Scheduler
from calibration.mini_engine.sequence import Sequence as Running
from calibration.mini_engine.sequence import StepPlan
from calibration.mini_engine.transfers import Copy
from traces.request import Trace


class Executor(Protocol):
    """What carries out steps and copies, on a clock of its own; times in seconds since the start of the run."""

    @property
    def copying(self) -> bool:
        """Whether a copy is under way."""

    def submit(self, copies: Sequence[Copy], now: float) -> None:
        """Start copies, in order, each direction one after the other."""

    def deliver(self, now: float) -> dict[str, int]:
        """Tell the copies that have arrived by `now`; pages of them by direction."""

    def run(self, plan: StepPlan, now: float) -> float:
        """Execute a step from `now` on; when it has ended."""

    def wait(self, now: float, until: float) -> float:
        """Nothing can run: when the next copy arrives, or `until` if that is earlier."""


@dataclass(frozen=True)
class StepRecord:
    """One step of a log. decodes, context, rows: as in `StepPlan`; chunks: (tokens, tokens before them). arrived: pages
    of copies that ended in it, or while idle before it, by direction; submitted: those started since the step before.
    """

    start: float
    end: float
    decodes: int
    context: int
    rows: int
    chunks: tuple[tuple[int, int], ...]
    arrived: dict[str, int]
    submitted: dict[str, int]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass
class Log:
    """A run: its steps, its requests, what its stores counted."""

    steps: list[StepRecord] = field(default_factory=list)
    sequences: list[Running] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    """What the scheduler decided, in order, in words that do not depend on time."""

    def ttft(self) -> list[float]:
        """Seconds from arrival to the first token, by request."""
        return [seq.first_token_s - seq.request.arrival_s for seq in self.sequences]

    def tpot(self) -> list[float]:
        """Seconds per further token, of requests that have more than one."""
        several = [seq for seq in self.sequences if seq.request.output_tokens > 1]
        return [(seq.finish_s - seq.first_token_s) / (seq.request.output_tokens - 1) for seq in several]


def run(
    trace: Trace,
    scheduler: Scheduler,
    executor: Executor,
    *,
    after_step: Callable[[StepRecord], None] = lambda record: None,
) -> Log:
    """Serve every request of the trace."""
    log, now, arrivals, log_sequences = Log(), 0.0, list(trace), []
    upcoming = 0
    arrived: dict[str, int] = {}
    submitted: dict[str, int] = {}
    while upcoming < len(arrivals) or scheduler.busy:
        while upcoming < len(arrivals) and arrivals[upcoming].arrival_s <= now:
            log_sequences.append(scheduler.enqueue(arrivals[upcoming]))
            upcoming += 1
        _add(arrived, executor.deliver(now))
        plan = scheduler.schedule()
        _add(submitted, _submit(scheduler, executor, now))
        if plan is None:
            next_arrival = arrivals[upcoming].arrival_s if upcoming < len(arrivals) else math.inf
            if not executor.copying and math.isinf(next_arrival):
                raise MemoryError("nothing can run and nothing will come: the pool is too small for a request")
            now = executor.wait(now, next_arrival) if executor.copying else next_arrival
            continue
        start, now = now, executor.run(plan, now)
        _add(arrived, executor.deliver(now))
        chunks = tuple((chunk.tokens, chunk.start) for chunk in plan.chunks)
        record = StepRecord(start, now, len(plan.decodes), plan.context, plan.rows, chunks, arrived, submitted)
        log.steps.append(record)
        log.decisions.append(_words(plan))
        after_step(record)
        arrived, submitted = {}, {}
        scheduler.commit(plan, now)
        _add(submitted, _submit(scheduler, executor, now))
    while executor.copying:
        now = executor.wait(now, math.inf)
        executor.deliver(now)
    log.sequences = log_sequences
    return log


def _submit(scheduler: Scheduler, executor: Executor, now: float) -> dict[str, int]:
    copies, scheduler.transfers.copies = scheduler.transfers.copies, []
    executor.submit(copies, now)
    pages: dict[str, int] = {}
    for copy in copies:
        _add(pages, {copy.direction: len(copy.pages)})
    return pages


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def _words(plan: StepPlan) -> str:
    decodes = ",".join(str(sequence.request.index) for sequence in plan.decodes)
    chunks = ",".join(f"{chunk.sequence.request.index}:{chunk.start}+{chunk.tokens}" for chunk in plan.chunks)
    return f"decode {decodes} prefill {chunks}"
