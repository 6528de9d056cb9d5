"""What fits hand on: values for a profile, scores on held-out points, and results that a profile has no place for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibration.fitting import Score, robust_fit, score
from calibration.kernel_fits import KernelFit, Value

Floats = NDArray[np.float64]
RESAMPLES = 40
"""Refits behind each 90 % interval."""


class Entry(NamedTuple):
    """A value at a dotted path of a profile, and its 90 % interval; SI units. source: key of `Part.sources`."""

    path: str
    value: float
    low: float
    high: float
    source: str


class HeldOut(NamedTuple):
    """Errors on points that no fit has seen. target: the largest mean error that is good enough; None: no target."""

    what: str
    score: Score
    target: float | None

    @property
    def missed(self) -> bool:
        """Whether the mean error exceeds the target."""
        return self.target is not None and self.score.mape > self.target


@dataclass
class Part:
    """The results of one group of benches. sources: what each source key means; extras: results by name."""

    entries: list[Entry] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    heldout: list[HeldOut] = field(default_factory=list)
    extras: dict[str, object] = field(default_factory=dict)
    kernels: list[KernelFit] = field(default_factory=list)
    """Kernel groups with their tables of ratios; the source of a group is `fit_NAME`."""

    def add(self, path: str, value: float, low: float, high: float, source: str) -> None:
        """One value."""
        self.entries.append(Entry(path, value, min(low, value), max(high, value), source))

    def judge(self, what: str, predicted: Floats, measured: Floats, target: float | None) -> None:
        """Score a model on held-out points, if there are any."""
        if len(measured):
            self.heldout.append(HeldOut(what, score(predicted, measured), target))

    def values(self) -> dict[str, Entry]:
        """Every value by its path, those of kernel groups included."""
        found = {entry.path: entry for entry in self.entries}
        for fit in self.kernels:
            for name, (value, low, high) in fit.values.items():
                path = f"kernels.{fit.points.name}.{name}"
                found[path] = Entry(path, value, low, high, f"fit_{fit.points.name}")
        return found

    def widen(self, share: float) -> None:
        """Make every interval wider by a share of its value to either side; those of no width stay."""

        def wider(value: float, low: float, high: float) -> tuple[float, float, float]:
            slack = share * value if low < high else 0.0
            return value, max(low - slack, 0.0), high + slack

        self.entries = [Entry(e.path, *wider(e.value, e.low, e.high), e.source) for e in self.entries]
        self.kernels = [
            replace(fit, values={name: Value(*wider(*value)) for name, value in fit.values.items()})
            for fit in self.kernels
        ]

    def merge(self, other: Part) -> None:
        """Take over everything of another part."""
        self.entries += other.entries
        self.sources |= other.sources
        self.heldout += other.heldout
        self.kernels += other.kernels
        self.extras |= other.extras


@dataclass(frozen=True)
class Line:
    """t = alpha + bytes / beta, with 90 % intervals as (low, high)."""

    alpha: float
    beta: float
    alpha_interval: tuple[float, float]
    beta_interval: tuple[float, float]

    def seconds(self, nbytes: Floats) -> Floats:
        """Predicted times."""
        return np.asarray(self.alpha + nbytes / self.beta)

    def summary(self) -> dict[str, object]:
        """For people: microseconds and GB/s."""
        return {
            "alpha_us": _round(1e6 * self.alpha),
            "alpha_us_90": [_round(1e6 * x) for x in self.alpha_interval],
            "beta_GBps": _round(1e-9 * self.beta),
            "beta_GBps_90": [_round(1e-9 * x) for x in self.beta_interval],
        }


def fit_line(nbytes: Floats, seconds: Floats, resamples: int = RESAMPLES) -> Line:
    """Robust line through times by bytes: soft-L1 on log residuals, intervals by bootstrap over points."""
    order = np.argsort(nbytes)
    nbytes, seconds = nbytes[order], seconds[order]
    start = np.array([max(0.5 * seconds[0], 1e-7), nbytes[-1] / seconds[-1]])
    least = np.array([0.0, 1e5])

    def predict(x: Floats, rows: NDArray[np.intp]) -> Floats:
        return np.asarray(x[0] + nbytes[rows] / x[1])

    rows = np.arange(len(nbytes))
    best = robust_fit(predict, start, least, seconds, rows)
    rng = np.random.Generator(np.random.Philox(0))
    again = np.maximum(best, start * 1e-3)
    draws = [
        robust_fit(predict, again, least, seconds, pick)
        for pick in rng.integers(0, len(rows), (resamples, len(rows)))
        if len(np.unique(pick)) > 1
    ]
    low, high = np.quantile(draws, [0.05, 0.95], axis=0) if draws else (best, best)
    alpha, beta = map(float, best)
    return Line(
        alpha,
        beta,
        (min(float(low[0]), alpha), max(float(high[0]), alpha)),
        (min(float(low[1]), beta), max(float(high[1]), beta)),
    )


def median_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """(median, 5 %, 95 %) of the median of few values, by bootstrap."""
    rng = np.random.Generator(np.random.Philox(seed))
    array = np.array(values, dtype=np.float64)
    draws = np.median(array[rng.integers(0, len(array), (400, len(array)))], axis=1)
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(np.median(array)), float(low), float(high)


def _round(value: float) -> float:
    return float(f"{value:.4g}")


TARGETS: Mapping[str, float] = {
    "stream": 0.03,
    "l2": 0.04,
    "copy": 0.03,
    "copy_small": 0.10,
    "blocks": 0.08,
    "decode": 0.05,
    "prefill": 0.05,
    "gemm": 0.08,
    "other": 0.08,
}
"""Largest mean relative errors on held-out points that are good enough."""
