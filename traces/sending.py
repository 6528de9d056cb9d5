"""How clients of a closed loop send what is ready: how many at a time, which one next, and at what pace.

SOURCE: SGLang, benchmark/hicache/bench_multiturn.py (--max-parallel, --ready-queue-policy, --request-rate,
--distribution): one sender takes a request out of the queue of those that are ready, sends it, and pauses; a pause with
nothing to send is lost. Where it looks every 50 ms whether a place is free, the sender here sends as soon as one is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.errors import InputError
from traces.random import stream

ReadyQueue = Literal["fifo", "random"]
Gaps = Literal["poisson", "uniform", "even"]
MOST_RATE = 1e6

Many = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


@dataclass(frozen=True)
class Sending:
    """What a sender does with requests that are ready; random choices and pauses come from streams of `seed`.

    order   fifo: the request that has been ready longest. random: any of those that are ready
    rate    requests/s that are sent at most, on average; None: no pause between them
    gaps    pauses between two sendings of mean 1 / rate: poisson (exponential), uniform (0 to 2 / rate), even
    """

    order: ReadyQueue = "fifo"
    rate: float | None = None
    gaps: Gaps = "poisson"
    seed: int = 0


class SenderSpec(BaseModel):
    """Keys that clients and recorded conversations in a closed loop share.

    max_parallel  requests under way at a time; others wait with their sender, which is no part of TTFT
    ready_queue   which of those that are ready is sent next: fifo (the one that waited longest) or random
    request_rate  requests/s, over all clients, at which those that are ready are sent; none: at once
    request_gaps  pauses between two sendings: poisson, uniform (0 to twice the mean) or even
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_parallel: Many | None = None
    ready_queue: ReadyQueue = "fifo"
    request_rate: Annotated[float, Field(strict=True, gt=0, le=MOST_RATE, allow_inf_nan=False)] | None = None
    request_gaps: Gaps | None = None

    @model_validator(mode="after")
    def _paced(self) -> SenderSpec:
        if self.request_gaps is not None and self.request_rate is None:
            raise InputError("pauses need a request_rate", path="request_gaps", found=self.request_gaps)
        return self

    def sending(self, seed: int) -> Sending | None:
        """What the keys say; None if what is ready is sent at once, the longest ready first."""
        if self.ready_queue == "fifo" and self.request_rate is None:
            return None
        return Sending(self.ready_queue, self.request_rate, self.request_gaps or "poisson", seed)


class Pace:
    """The sender at work: which place of the queue is sent next, and when sending is possible again."""

    def __init__(self, sending: Sending) -> None:
        self._random = sending.order == "random"
        self._mean_s = 0.0 if sending.rate is None else 1.0 / sending.rate
        self._gaps = sending.gaps
        self._choice = stream(sending.seed, "sending.choice")
        self._pause = stream(sending.seed, "sending.gap")
        self._next_s = 0.0
        """When the next request may be sent."""

    def chosen(self, ready: int) -> int:
        """Place of the next request in a queue of `ready`."""
        return int(self._choice.random() * ready) if self._random and ready > 1 else 0

    def earliest(self, now: float) -> float:
        """When the sender may send, s: `now` or later. Chances before `now`, with nothing to send, were lost."""
        while self._next_s < now:
            if not self._mean_s:
                return now
            self._next_s += self._gap_s()
        return self._next_s

    def sent(self, now: float) -> None:
        """A request was sent `now`: the next one after a pause."""
        self._next_s = now + (self._gap_s() if self._mean_s else 0.0)

    def held(self, now: float) -> None:
        """Until `now` no place was free: a chance that came meanwhile is taken now."""
        self._next_s = max(self._next_s, now)

    def _gap_s(self) -> float:
        if self._gaps == "even":
            return self._mean_s
        u = self._pause.random()
        return 2.0 * self._mean_s * u if self._gaps == "uniform" else -self._mean_s * math.log1p(-u)
