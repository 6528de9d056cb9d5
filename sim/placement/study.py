"""The study behind `kvsim place`: placements of one layer's pages, with the bounds beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from hw_profiles.profile import Profile
from policies.build import build_policy
from policies.placement.base import Placement, PlacementInfo
from sim.cache.policy_names import as_mapping, label
from sim.placement.anneal import annealed
from sim.placement.model import Machine, Steps, floor_s, play, seconds
from traces.importance.pages import SETTINGS, page_scores
from traces.importance.recorded import Recorded
from traces.random import stream

BOUND, FLOOR = "annealed", "floor"
MEANING = (
    "Time per step and layer: the longer of what is read in HBM and in host memory, and pages that moved. annealed "
    "knows the future and starts from the best placement shown: none of these is better. floor: no placement at all is "
    "better."
)


@dataclass(frozen=True)
class Row:
    """One placement: mean seconds of a step and layer, its parts, and how many times faster than all in host memory.

    hbm_share  of the attended pages, those in HBM; moved: pages that came to HBM, per step
    """

    policy: str
    step_s: float
    gain: float
    hbm_share: float
    moved: float


@dataclass(frozen=True)
class Study:
    """Rows of policies and of the bound, in the order asked for, over the same attended pages."""

    about: str
    pages: int
    attended: int
    capacity: int
    steps: int
    layers: int
    limit: float
    rows: tuple[Row, ...]


def attended_pages(pages: int, selected: int, *, setting: str, steps: int, layers: int, seed: int = 0) -> list[Steps]:
    """What each step of each layer attends to: the `selected` best pages of the page process (traces.importance)."""
    draws = stream(seed, f"placement.{setting}", pages)
    scores = page_scores(SETTINGS[setting], pages, draws, steps=steps, layers=layers)
    return [_best(scores[:, layer], selected) for layer in range(layers)]


def recorded_pages(data: Recorded, selected: int) -> list[Steps]:
    """The same of recorded scores."""
    return [_best(layer, selected) for layer in data.scores]


def _best(scores: Any, selected: int) -> Steps:
    pages = scores.shape[1]
    selected = min(selected, pages)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :selected]
    out = np.zeros(scores.shape, dtype=np.bool_)
    np.put_along_axis(out, order, True, axis=1)
    found: Steps = out & np.isfinite(scores)
    return found


def machine_of(profile: Profile, page_bytes: float, pages: int, capacity: int) -> Machine:
    """The memories of a profile: HBM, and host memory read over the GPU's link (NVLink-C2C, PCIe)."""
    read = profile.copy_model("pcie_h2d", "loop").beta
    back = profile.copy_model("pcie_d2h", "loop").beta
    return Machine(PlacementInfo(pages, capacity, profile.hbm_bandwidth, read, read, back), page_bytes)


def run_place(
    machine: Machine,
    layers: Sequence[Steps],
    policies: Sequence[str | Mapping[str, Any]],
    *,
    about: str = "",
    moves: int = 20_000,
    base_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Every policy over every layer, and the bound. `moves`: tries of the annealing per layer; 0 leaves it out.

    A policy is a name of the table of placement policies, "my_policy.py:MyPolicy", or a mapping of such a `name` and
    options. Raises InputError.
    """
    if not policies:
        raise InputError("none given", path="policy")
    here = base_dir or Path.cwd()
    specs = {label(spec): spec for spec in map(as_mapping, policies)}
    placed: dict[str, list[Steps]] = {}
    for done, (name, spec) in enumerate(specs.items()):
        placed[name] = [play(_build(spec, machine.info, here), attended) for attended in layers]
        if progress is not None:
            progress(done + 1, len(specs) + bool(moves))
    if moves:
        shown = list(zip(*placed.values(), strict=True))
        placed[BOUND] = [
            annealed(machine, attended, starts, moves=moves, seed=i)
            for i, (attended, starts) in enumerate(zip(layers, shown, strict=True))
        ]
        if progress is not None:
            progress(len(specs) + 1, len(specs) + 1)
    steps = sum(len(attended) for attended in layers)
    worst = sum(float(attended.sum()) for attended in layers) * machine.unit_s[1] / steps
    rows = [_row(name, machine, layers, found, worst) for name, found in placed.items()]
    least = sum(floor_s(machine, attended) for attended in layers) / steps
    rows.append(Row(FLOOR, least, worst / least, float("nan"), float("nan")))
    info = machine.info
    limit = (info.hbm_rate + info.host_rate) / info.host_rate
    counts = [int(attended.sum(axis=1).max()) for attended in layers]
    return Study(about, info.pages, max(counts), info.capacity, len(layers[0]), len(layers), limit, tuple(rows))


def _row(name: str, machine: Machine, layers: Sequence[Steps], placed: Sequence[Steps], worst: float) -> Row:
    steps = sum(len(attended) for attended in layers)
    step_s = sum(float(seconds(machine, a, p).sum()) for a, p in zip(layers, placed, strict=True)) / steps
    near = sum(int((a & p).sum()) for a, p in zip(layers, placed, strict=True))
    moved = sum(int((p[1:] & ~p[:-1]).sum()) for p in placed)
    return Row(name, step_s, worst / step_s, near / sum(int(a.sum()) for a in layers), moved / steps)


def _build(spec: Mapping[str, Any], info: PlacementInfo, here: Path) -> Placement:
    policy: Placement = build_policy("placement", spec, info, base_dir=here, path="policy")
    return policy
