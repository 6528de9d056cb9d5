"""As many replicas as the load will need when they are ready."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from policies.fleet.base import FleetWindow, Scaling, Start, Stop
from policies.fleet.forecast import Forecast
from policies.options import number, seconds, whole


class Predictive(Scaling):
    """ceil(load / (`requests` x `utilization`)) replicas, for the largest load that is forecast until a start is over.

    requests     requests that a replica is full with
    utilization  share of them that is planned for
    period       after which the load repeats

    Each window's peak is forecast (policies.fleet.forecast), and what is in the system now counts too, so that it is
    never below what a policy without a forecast would want. It needs a whole period before it knows anything.
    Source: the predictor of LLMServe/WarmServe (scheduler.py), used for replicas of one model.
    """

    def __init__(self, *, requests: int = 32, utilization: float = 0.8, period: float | str = "24 h") -> None:
        self._each = whole("requests", requests, 1, 1_000_000) * number("utilization", utilization, 0, 1, above=True)
        self._period = seconds("period", period, above=True)
        self._peaks: Forecast | None = None

    def plan(self, window: FleetWindow) -> int | Iterable[Start | Stop]:
        if self._peaks is None:
            self._peaks = Forecast(max(1, round(self._period / window.window_s)))
        self._peaks.add(float(window.peak))
        until = ceil(window.start_s / window.window_s) + 1
        coming = max(self._peaks.ahead(i) for i in range(1, until + 1))
        return ceil(max(coming, window.load) / self._each)
