"""What placements cost over the steps of one layer (arXiv 2508.13231).

Attention reads the attended pages of HBM and of host memory at the same time, and pages that move do so between steps:

    T_t = max(h_t b / B_hbm, d_t b / B_host) + in_t b / B_in + out_t b / B_out

h_t, d_t: attended pages in either; in_t, out_t: pages that came to HBM, or left it, before step t. A page lies in one
of the two (exclusive), so one that leaves is copied back. The first placement is where pages were written and costs
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_profiles.errors import InputError
from policies.placement.base import Mask, Placement, PlacementInfo, mask_fault

Steps = npt.NDArray[np.bool_]
"""bool[steps, pages]: what each step attends to, or what lies in HBM in it."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Machine:
    """A layer's pages and the memories that they lie in. Bytes and bytes/s."""

    info: PlacementInfo
    page_bytes: float

    @property
    def unit_s(self) -> tuple[float, float, float, float]:
        """Seconds for a page: read in HBM, read in host memory, moved in, moved out."""
        i, b = self.info, self.page_bytes
        return b / i.hbm_rate, b / i.host_rate, b / i.in_rate, b / i.out_rate


def seconds(machine: Machine, attended: Steps, placed: Steps) -> Floats:
    """Seconds of each step, float64[steps]."""
    hbm, host, into, out = machine.unit_s
    near, far = (attended & placed).sum(axis=1), (attended & ~placed).sum(axis=1)
    came = np.zeros(len(placed))
    left = np.zeros(len(placed))
    came[1:] = (placed[1:] & ~placed[:-1]).sum(axis=1)
    left[1:] = (placed[:-1] & ~placed[1:]).sum(axis=1)
    return np.asarray(np.maximum(near * hbm, far * host) + came * into + left * out)


def floor_s(machine: Machine, attended: Steps) -> float:
    """Seconds that no placement beats: of each step, the best split of what it attends, and no page moves."""
    hbm, host, _, _ = machine.unit_s
    counts = attended.sum(axis=1)
    near = np.minimum(counts * machine.info.share, machine.info.capacity)
    split = np.maximum(near * hbm, (counts - near) * host)
    whole = np.floor(near)  # pages are whole: the better of the two splits beside the best one
    more = np.minimum(whole + 1, np.minimum(counts, machine.info.capacity))
    beside = [np.maximum(n * hbm, (counts - n) * host) for n in (whole, more)]
    return float(np.maximum(split, np.minimum(*beside)).sum())


def play(policy: Placement, attended: Steps) -> Steps:
    """What lies in HBM in each step under a policy. Raises InputError for one that breaks its contract."""
    placed = np.zeros(attended.shape, dtype=np.bool_)
    placed[0] = _checked(policy, policy.first())
    for step in range(1, len(attended)):
        answer = policy.after(attended[step - 1].copy(), placed[step - 1].copy())
        placed[step] = _checked(policy, answer)
    return placed


def _checked(policy: Placement, answer: Any) -> Mask:
    fault = mask_fault(policy.info, answer)
    if fault:
        raise InputError(f"placement policy {type(policy).__name__} broke its contract: {fault}")
    mask: Mask = answer
    return mask
