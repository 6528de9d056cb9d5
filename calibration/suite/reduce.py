"""From raw samples to one number per point, over all passes, and how far the passes were apart.

The number is the mean of the middle half: as deaf to disturbed repetitions as a median, but not blind between the ticks
of a clock. CUDA events resolve about half a microsecond (CUDA Runtime API, cudaEventElapsedTime), a tenth of the
shortest kernels; where in a tick a sample starts is chance, so the mean is right where the median jumps.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.suite.samples import Samples
from hw_profiles.errors import InputError

DRIFT_REPORTED, DRIFT_REFUSED = 0.02, 0.05
"""Anchors that moved by more than 2 % are reported; by more than 5 %, no profile is made."""
LARGE = 4
"""Streams of more times the L2 than that have a floor, by the datasheet's rate."""
UNUSABLE = frozenset({"below_floor"})
"""Flags of points that are wrong, not only noisy."""


@dataclass(frozen=True)
class Reading:
    """One point. Times in seconds; passes: those of each; spread: their difference, relative (0 with one)."""

    bench: str
    key: Mapping[str, Any]
    heldout: bool
    seconds: float
    host_s: float
    spread: float
    passes: tuple[float, ...]
    nbytes: float
    flops: float
    extra: Mapping[str, float]


class Readings:
    """All points of a file, without those that are impossible."""

    def __init__(self, readings: Sequence[Reading], refused: int = 0) -> None:
        self.all = tuple(readings)
        self.refused = refused
        """Points left out because they were faster than the hardware can be."""

    def of(self, bench: str, *, heldout: bool | None = None, **key: object) -> list[Reading]:
        """Points of a bench with these values in their key; heldout: only those, or only the others."""
        return [
            reading
            for reading in self.all
            if reading.bench == bench
            and (heldout is None or reading.heldout == heldout)
            and all(reading.key.get(name) == value for name, value in key.items())
        ]

    @property
    def spread(self) -> float:
        """Median of the relative difference between passes: what no model can be better than."""
        return float(statistics.median(reading.spread for reading in self.all)) if self.all else 0.0


def peak_of(samples: Samples) -> float:
    """Datasheet rate of the memory as the driver reports it (bytes/s); 0 if it reports none, or cannot be right.

    Where most of the streams that are far larger than L2 exceed it, it is the clock or the width that is wrong.
    """
    device = samples.env["device"]
    large = [record for record in samples.of("stream") if record.get("nbytes", 0) > LARGE * device["l2_bytes"]]
    beyond = sum("below_floor" in record["flags"] for record in large)
    return float(device.get("peak", 0.0)) if 2 * beyond <= len(large) else 0.0


def reduce(samples: Samples) -> Readings:
    """One reading per point, over passes and repetitions."""
    unusable = UNUSABLE if peak_of(samples) else frozenset()
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for record in samples.samples:
        by_name.setdefault(record["name"], []).append(record)
    kept = []
    refused = 0
    for records in by_name.values():
        usable = [record for record in records if not unusable & set(record["flags"])]
        if usable:
            kept.append(_reading(usable))
        else:
            refused += 1
    return Readings(kept, refused)


def _reading(records: Sequence[Mapping[str, Any]]) -> Reading:
    first = records[0]
    passes = tuple(1e-6 * midmean(record["us"]) for record in records)
    times = [value for record in records for value in record["us"]]
    host = [value for record in records for value in record.get("host_us", record["us"])]
    seconds = 1e-6 * midmean(times)
    names = first.get("extra", {})
    extra = {name: midmean([v for record in records for v in record["extra"][name]]) for name in names}
    return Reading(
        bench=first["bench"],
        key=first["key"],
        heldout=bool(first.get("heldout", False)),
        seconds=seconds,
        host_s=1e-6 * midmean(host),
        spread=(max(passes) - min(passes)) / seconds,
        passes=passes,
        nbytes=float(first.get("nbytes", 0.0)),
        flops=float(first.get("flops", 0.0)),
        extra=extra,
    )


def midmean(values: Sequence[float]) -> float:
    """Mean of the middle half of at least one value."""
    ordered, cut = sorted(values), len(values) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut])


def drift(samples: Samples) -> float:
    """Largest relative difference between anchors of one kind. Raises InputError when it is too large for a profile."""
    largest = 0.0
    for what in ("gemm", "copy"):
        times = [midmean(record["us"]) for record in samples.anchors if record["what"] == what]
        if len(times) > 1:
            largest = max(largest, (max(times) - min(times)) / min(times))
    if largest > DRIFT_REFUSED and samples.env["device"]["kind"] != "cpu":
        problem = "the card changed its speed while it was measured (clocks, heat, or others on it): measure again"
        raise InputError(problem, where=samples.path, path="anchor", found=f"{largest:.1%}", allowed="at most 5 %")
    return largest


def columns(readings: Iterable[Reading], *names: str) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """float64 arrays of keys, or of `seconds`, `nbytes`, `flops`, `host_s` of readings."""
    rows = list(readings)
    own = {"seconds", "nbytes", "flops", "host_s"}
    return [np.array([float(getattr(r, n) if n in own else r.key[n]) for r in rows]) for n in names]
