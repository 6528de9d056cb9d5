"""What lies between the arrival of a request and the queue of its replica: routing, and admission control."""

from __future__ import annotations

from collections.abc import Callable

from sim.clock import Clock
from sim.cost.step import StepCost
from sim.engine.sequence import Sequence
from sim.gate import Gate
from sim.routing import Routing
from sim.scenario import Scenario


class Front:
    """Sends a request to the replica that a router chooses, if admission control lets it.

    refused   told of a request that is turned away, with its status
    """

    def __init__(
        self,
        scenario: Scenario,
        clock: Clock,
        cost: StepCost,
        routing: Routing,
        refused: Callable[[Sequence, str], None],
    ) -> None:
        spec = scenario.spec.admission_control
        self._gate = None if spec is None or spec.name == "none" else Gate(scenario, clock, cost)
        self._routing = routing
        self._refused = refused

    def send(self, seq: Sequence) -> None:
        """A request goes to a replica now, or is turned away."""
        replica = self._routing.choose(seq)
        gate = self._gate
        if gate is None or gate.admits(seq, replica):
            replica.enqueue(seq)
        else:
            self._refused(seq, gate.refusal)
