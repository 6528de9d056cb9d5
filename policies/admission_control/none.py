"""Everybody is served."""

from __future__ import annotations

from policies.admission_control.base import AdmissionControl, GateView
from policies.base import RequestView


class NoAdmissionControl(AdmissionControl):
    """Every request is served, however long it waits.

    Source: the default of vLLM and of SGLang.
    """

    def admit(self, request: RequestView, replica: GateView) -> bool:
        return True
