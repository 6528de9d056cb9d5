"""The load of windows to come: what it was at this time of earlier days, and how far it has been off lately."""

from __future__ import annotations

from statistics import fmean

RECENT = 10
"""Windows whose error counts."""


class Forecast:
    """Forecast of one figure per window, for traffic with a period of so many windows.

    past(t) + sum over the last RECENT windows i of 2^-i (seen(t - i) - past(t - i)) / sum of 2^-i, where past(w) is the
    mean of the earlier periods at the same place. In the first period, which has no past, it is the mean of the recent
    ones with the same weights.
    SOURCE: LLMServe/WarmServe, vllm/entrypoints/controller/scheduler.py, update_loads (its past is given, the mean of
    the same hour of earlier days; here it is learnt).
    """

    def __init__(self, windows: int) -> None:
        self._windows = windows
        self._seen: list[float] = []

    def add(self, value: float) -> None:
        """The figure of the window that has just ended."""
        self._seen.append(value)

    def ahead(self, windows: int = 1) -> float:
        """The figure of the window `windows` after the last that was seen (1: the next one); 0 at least."""
        if not self._seen:
            return 0.0
        last = len(self._seen) - 1
        weights = [2.0**-i for i in range(min(RECENT, len(self._seen)))]
        past = [self._past(last - i) for i in range(len(weights))]
        then = self._past(last + windows)
        if then is None:
            recent = sum(w * self._seen[last - i] for i, w in enumerate(weights))
            return recent / sum(weights)
        # A window of the first period has no past to be off from.
        known = [
            (w, self._seen[last - i] - p) for i, (w, p) in enumerate(zip(weights, past, strict=True)) if p is not None
        ]
        off = sum(w * error for w, error in known) / sum(w for w, _ in known) if known else 0.0
        return max(0.0, then + off)

    def _past(self, window: int) -> float | None:
        before = [self._seen[i] for i in range(window % self._windows, min(window, len(self._seen)), self._windows)]
        return fmean(before) if before else None
