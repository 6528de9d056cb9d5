"""Everything is on."""

from __future__ import annotations

from policies.fleet.base import FleetWindow, Scaling


class NoScaling(Scaling):
    """All replicas serve from the start to the end."""

    def plan(self, window: FleetWindow) -> int:
        return window.most
