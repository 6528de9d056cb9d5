"""`kvsim validate kernels`: every shipped profile against the held-out points of the tables that it was fitted to.

What is scored is the profile as it is charged: its formulas with their tables, through the same choice of kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import median
from types import MappingProxyType

import numpy as np

from calibration.aic_products import gemm_bytes
from calibration.decode_steps import Steps, decode_steps
from calibration.fitting import Array, Score, score
from calibration.importer import read_points
from calibration.points import KernelModel, Points
from calibration.shipped import SHIPPED, folder_of
from calibration.targets import target_of
from calibration.transfer import Datasheet, transfer
from hw_profiles.cost_models import DecodeModel, GemmModel
from hw_profiles.errors import InputError
from hw_profiles.kernel_groups import decode_key, mla_decode_key, prefill_key
from hw_profiles.loader import load_profile
from hw_profiles.profile import Profile

MACHINES = ("a100-80", "h100-sxm", "l40s", "b200", "rtx-pro-6000")
"""The machines between which calibrations are carried over."""

CROSS: Mapping[str, tuple[str, str]] = MappingProxyType({"rtx-pro-6000": ("llmservingsim", "RTXPRO6000")})
"""Profiles that a second source measured: its layout and machine folder. It has prefill after cached prefixes."""


@dataclass(frozen=True)
class Row:
    """Errors of one kernel on one split, as fractions; `target` is the largest `mape` allowed, None if any is."""

    profile: str
    kernel: str
    split: str
    mape: float
    p90: float
    bias: float
    n: int
    target: float | None
    family: str = ""

    @property
    def missed(self) -> bool:
        """True when the target is missed."""
        return self.target is not None and self.mape > self.target

    def as_dict(self) -> dict[str, object]:
        """The row as it is printed as JSON: what rows of other suites have, and its own columns.

        The error is the mean of many points' (`n`), so there is no one measured or simulated time.
        """
        shared = {"suite": "kernels", "metric": f"{self.profile} {self.kernel}, {self.split}"}
        names = ("profile", "kernel", "split", "mape", "p90", "bias", "n", "target")
        own = {name: getattr(self, name) for name in names}
        return shared | {"measured": None, "simulated": None, "error": self.mape} | own


def validate_kernels(data: Path, progress: Callable[[str], None] = lambda name: None) -> list[Row]:
    """A row per profile, kernel and split; `progress` is told each profile. Raises InputError without tables."""
    rows: list[Row] = []
    steps: dict[str, list[Steps]] = {}
    for name in SHIPPED:
        folder = folder_of(SHIPPED[name], data)
        if not folder.is_dir():
            raise InputError(
                "no kernel tables", where=folder, allowed="kernels/<layout>/<machine> below the data folder"
            )
        progress(name)
        profile = load_profile(name)
        points = read_points(folder, SHIPPED[name].layout, SHIPPED[name].backend).points
        rows += [row for each in points for row in kernel_rows(profile, each)]
        found = decode_steps(points)
        if found:
            steps[name] = found
            rows.append(step_row(profile, found))
    rows += transfer_rows({name: steps[name] for name in MACHINES if name in steps})
    for name, (layout, system) in CROSS.items():
        progress(f"{name} against {layout}")
        other = read_points(data / "kernels" / layout / system, layout).points
        rows += [row for each in other for row in cross_rows(load_profile(name), each)]
    return rows


def kernel_rows(profile: Profile, points: Points) -> Iterator[Row]:
    """A row per split of one kernel, if the profile has it."""
    model = model_of(profile, points.name)
    if model is None:
        return
    for split, inside in points.splits.items():
        if inside.any():
            part = points.take(inside)
            yield _row(profile.name, points.name, split, score(part.predict(model), part.seconds), points.family)


def cross_rows(profile: Profile, points: Points) -> Iterator[Row]:
    """All points of a source that no fit of this profile has seen, another version of the engine and its tables."""
    model = model_of(profile, points.name)
    if model is not None:
        found = score(points.predict(model), points.seconds)
        yield _row(profile.name, points.name, "other source: LLMServingSim", found, points.family)


def model_of(profile: Profile, name: str) -> KernelModel | None:
    """The model that the profile charges a kernel group with; None if it has no such group."""
    if f"kernels.{name}.t0" not in profile.entries and f"kernels.{name}.alpha" not in profile.entries:
        return None
    kind, _, rest = name.partition("_")
    if kind == "gemm":
        return profile.gemm_for(rest)
    if kind == "moe":
        return profile.moe_for(rest)
    if kind == "allreduce":
        return profile.allreduce(int(rest))
    if (decode := decode_key(name)) is not None:
        return profile.decode_for(*decode)
    if (prefill := prefill_key(name)) is not None:
        return profile.prefill_for(*prefill)
    if (latent := mla_decode_key(name)) is not None:
        return profile.mla_decode(*latent)
    return profile.mla_prefill(name.removeprefix("mla_prefill_"), 32)


def step_row(profile: Profile, found: list[Steps]) -> Row:
    """Sums of the kernels of decode steps, those whose attention no fit saw."""
    predicted = [_predict(steps, profile.gemm, _decode(profile, steps))[steps.heldout] for steps in found]
    measured = [steps.seconds[steps.heldout] for steps in found]
    names = ", ".join(f"{steps.model} TP{steps.ranks}" for steps in found)
    return _row(
        profile.name, "decode_step", "held out", score(np.concatenate(predicted), np.concatenate(measured)), names
    )


def transfer_rows(steps: Mapping[str, list[Steps]]) -> list[Row]:
    """Decode steps of each machine by the calibration of each other and the datasheets; median and worst of them."""
    rows = []
    for source, name in permutations(steps, 2):
        profile, target = load_profile(source), load_profile(name)
        models = transfer(profile, Datasheet.of(target))
        same = [each for each in steps[name] if each.group == "decode_attn"]
        predicted = np.concatenate([_predict(each, models.gemm, models.decode) for each in same])
        measured = np.concatenate([each.seconds for each in same])
        rows.append(_row(name, "transferred decode_step", f"from {source}", score(predicted, measured), ""))
    errors = [row.mape for row in rows]
    worst = max(rows, key=lambda row: row.mape)
    middle = Score(
        len(rows), median(errors), float(np.quantile(errors, 0.9)), max(errors), median(r.bias for r in rows)
    )
    return [
        *rows,
        _row("all pairs", "transferred decode_step", "median", middle, ""),
        Row(
            "all pairs",
            worst.kernel,
            f"worst: {worst.profile} {worst.split}",
            worst.mape,
            worst.p90,
            worst.bias,
            worst.n,
            None,
        ),
    ]


def _decode(profile: Profile, steps: Steps) -> DecodeModel:
    key = decode_key(steps.group)
    return profile.decode_for(*key) if key is not None else profile.decode


def _predict(steps: Steps, gemm: GemmModel, decode: DecodeModel) -> Array:
    weights = {
        (n, k): gemm_bytes("bf16", steps.batch, np.full_like(steps.batch, n), np.full_like(steps.batch, k))
        for n, k in steps.shapes
    }
    return steps.predict(gemm, decode, weights)


def _row(profile: str, kernel: str, split: str, found: Score, family: str) -> Row:
    target = target_of(profile, kernel, split)
    return Row(profile, kernel, split, found.mape, found.p90, found.bias, found.n, target, family)
