"""What lies between the arrival of a request and the queue of its replica: caches of answers, the index of prefixes,
routing, admission control."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sim.clock import Clock
from sim.cost.step import StepCost
from sim.engine.sequence import Sequence
from sim.front_reuse import Index, Responses, reuse_policies
from sim.gate import Gate
from sim.routing import Routing
from sim.scenario import Scenario


class Front:
    """Sends a request to the replica that a router chooses, if no cache has its answer and admission control lets it.

    onward     takes what must be served: `send`, or who calls that when a replica has room
    answered  told of a request that a cache answered
    refused   told of a request that is turned away, with its status
    """

    def __init__(
        self,
        scenario: Scenario,
        clock: Clock,
        cost: StepCost,
        routing: Routing,
        *,
        onward: Callable[[Sequence], None],
        answered: Callable[[Sequence], None],
        refused: Callable[[Sequence, str], None],
    ) -> None:
        spec = scenario.spec.admission_control
        self._gate = None if spec is None or spec.name == "none" else Gate(scenario, clock, cost)
        caches, index = reuse_policies(scenario)
        self.responses = Responses(caches) if caches else None
        self.index = None if index is None else Index(index)
        self._clock = clock
        self._routing = routing
        self._onward = onward
        self._answered = answered
        self._refused = refused

    @property
    def asks(self) -> bool:
        """True if requests look something up before they are sent to a replica."""
        return self.responses is not None or self.index is not None

    def arrive(self, seq: Sequence) -> None:
        """A request that could be served has come."""
        now, wait = self._clock.now, 0.0
        if self.responses is not None:
            found, wait = self.responses.lookup(seq)
            if found is not None:
                self._clock.at(now + wait, partial(self._answer, seq, found))
                return
        if self.index is not None:
            wait += self.index.lookup(seq, now + wait)
        if wait:
            self._clock.at(now + wait, partial(self._looked_up, seq))
        else:
            self._onward(seq)

    def ended(self, seq: Sequence) -> None:
        """A request that a replica served has ended."""
        if self.responses is not None:
            self.responses.answered(seq)
        if self.index is not None:
            self.index.update(seq, self._clock.now)

    def _looked_up(self, seq: Sequence) -> None:
        seq.entered_s = seq.fetched_s = self._clock.now
        self._onward(seq)

    def send(self, seq: Sequence) -> None:
        """A request goes to a replica now, or is turned away."""
        replica = self._routing.choose(seq)
        gate = self._gate
        if gate is None or gate.admits(seq, replica):
            replica.enqueue(seq)
        else:
            self._routing.taken_back(seq, replica)
            self._refused(seq, gate.refusal)

    def _answer(self, seq: Sequence, cache: str) -> None:
        """All of the answer comes at once."""
        now = self._clock.now
        seq.entered_s = seq.fetched_s = now
        seq.admit_s = seq.load_done_s = seq.chunk_s = seq.first_token_s = seq.finish_s = now
        seq.status = f"finished: answered by {cache}"
        self._answered(seq)
