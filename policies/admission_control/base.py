"""What admission control may see and say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from policies.base import RequestView
from policies.routing.base import ReplicaView


class GateView(ReplicaView, Protocol):
    """The replica that a router chose for a request, as it is, and what is to be expected of it.

    Expectations are those of the step costs that the simulation itself uses. They do not foresee what comes after this
    request, loads over links, memory that runs out, or an order other than that of arrival.
    """

    @property
    def now(self) -> float:
        """Simulated time, s."""

    @property
    def queue_s(self) -> float:
        """Seconds until the prompts that were sent here before and have no token yet are computed."""

    def prefill_s(self, request: RequestView) -> float:
        """Seconds to compute what of a prompt is not cached here, alone."""

    @property
    def decoding_s(self) -> Sequence[float]:
        """Seconds since the first token, of each request here that has one."""

    def step_s(self, seqs: int) -> float:
        """Seconds of a decode step of so many requests that hold as much KV in the mean as those running now."""


class AdmissionControl(ABC):
    """Says whether a request is served, once, when it arrives and a router has chosen its replica.

    One that is turned away ends at once, as rejected: it is in no latency, and it misses every target of the SLO.

    What the policy promises: `admit` returns True or False, changes nothing that it is shown, and its answers follow
    from the calls and from what the views show alone.
    """

    @abstractmethod
    def admit(self, request: RequestView, replica: GateView) -> bool:
        """True to send the request to the replica, False to turn it away."""
