"""From raw samples to everything that a profile says of the machine they were taken on."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.suite import fit_kernels, fit_links, fit_memory, fit_rest
from calibration.suite.parts import RESAMPLES, HeldOut, Part
from calibration.suite.reduce import Readings, drift, peak_of, reduce
from calibration.suite.samples import Samples
from hw_profiles.errors import InputError
from hw_profiles.kernel_groups import REQUIRED_GROUPS
from hw_profiles.schema import REQUIRED, REQUIRED_LINKS

NOISE = 2.0
"""No target asks for less than so many times the spread between the passes."""
COMMON = 0.5
"""Of the spread between the passes: what clocks and neighbours do to all points alike. A bootstrap over points does not
see it, so every interval is wider by so much to either side."""
BENCH_OF = {
    "tiers.hbm": "stream",
    "kernels.gemm_bf16": "gemm",
    "kernels.decode_attn": "decode",
    "kernels.prefill_attn": "prefill",
    "kernels.launch": "launch",
}
"""The bench whose samples give a group of values that every profile must have."""


@dataclass(frozen=True)
class Fitted:
    """The fit of one machine. part: all values, scores and results; drift: of the anchors, relative."""

    samples: Samples
    readings: Readings
    part: Part
    drift: float

    @property
    def missed(self) -> list[HeldOut]:
        """Held-out scores above their limit."""
        return [held for held in self.part.heldout if held.score.mape > (self.limit(held) or float("inf"))]

    def limit(self, held: HeldOut) -> float | None:
        """The target, or what repeating the measurement changes if that is more; None: no target."""
        return None if held.target is None else max(held.target, NOISE * self.readings.spread)


def fit_samples(samples: Samples, resamples: int = RESAMPLES) -> Fitted:
    """Fit everything. Raises InputError when the samples lack what a profile must have, or the card drifted."""
    readings, device = reduce(samples), samples.env["device"]
    moved = drift(samples)
    part = Part()
    l2_bytes, peak = int(device["l2_bytes"]), peak_of(samples)
    part.merge(fit_memory.memory_part(readings, l2_bytes, peak, resamples))
    part.merge(fit_memory.launch_part(readings))
    part.merge(fit_links.links_part(readings, resamples))
    part.merge(fit_kernels.kernels_part(readings, peak, resamples))
    part.merge(fit_rest.rest_part(readings, resamples))
    _check_complete(samples, part)
    hbm = part.values()["tiers.hbm.read"].value
    part.merge(fit_rest.overlap_part(readings, hbm))
    part.widen(COMMON * readings.spread)
    return Fitted(samples, readings, part, moved)


def _check_complete(samples: Samples, part: Part) -> None:
    """Raise InputError for the first value that every profile must have and that was not measured."""
    have = part.values()
    groups = {**{f"kernels.{name}": values for name, values in REQUIRED_GROUPS.items()}, **REQUIRED}
    for group, bench in BENCH_OF.items():
        for name in groups.get(group, {}):
            if f"{group}.{name}" not in have:
                _lacks(samples, f"{group}.{name}", bench)
    for link in REQUIRED_LINKS:
        if f"links.{link}.alpha" not in have:
            _lacks(samples, f"links.{link}", "copy")


def _lacks(samples: Samples, path: str, bench: str) -> None:
    problem = f"too few samples of bench {bench!r} for {path}, which every profile has"
    if not samples.complete:
        problem += "; the run did not finish: go on with `kvsim calibrate run --resume`"
    raise InputError(problem, where=samples.path)
