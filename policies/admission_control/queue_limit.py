"""A queue of so many."""

from __future__ import annotations

from policies.admission_control.base import AdmissionControl, GateView
from policies.base import RequestView
from policies.options import whole


class QueueLimit(AdmissionControl):
    """Turns a request away if so many wait on its replica already.

    waiting   requests that may wait on a replica, those whose prefix is being loaded included

    Source: SGLang's --max-queued-requests; Triton Inference Server's max_queue_size.

    Complexity: O(1).
    """

    def __init__(self, *, waiting: int = 64) -> None:
        self._waiting = whole("waiting", waiting, 1, 2**31)

    def admit(self, request: RequestView, replica: GateView) -> bool:
        return replica.waiting < self._waiting
