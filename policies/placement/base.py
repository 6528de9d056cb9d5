"""What a placement policy may see and say: one layer of a sequence, split between HBM and host memory.

Attention reads both at once (arXiv 2508.13231), so a page that lies in host memory is not fetched before it is used; it
is read where it lies. A policy moves pages between steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
"""bool[pages]."""


@dataclass(frozen=True)
class PlacementInfo:
    """What a policy knows when it is built.

    pages      of the layer; capacity: those of them that fit HBM
    hbm_rate   bytes/s of HBM; host_rate: at which the GPU reads host memory
    in_rate, out_rate  bytes/s of pages that move to HBM, and back
    """

    pages: int
    capacity: int
    hbm_rate: float
    host_rate: float
    in_rate: float
    out_rate: float

    @property
    def share(self) -> float:
        """Of what a step reads, the part in HBM with which both are read in the same time."""
        return self.hbm_rate / (self.hbm_rate + self.host_rate)


class Placement(ABC):
    """Says which pages lie in HBM in the next step.

    What a policy promises: `first` and `after` return masks of the pages in HBM, `capacity` of them at most; they
    change nothing that they are shown and follow from the calls alone.
    """

    def __init__(self, info: PlacementInfo) -> None:
        self.info = info

    def first(self) -> Mask:
        """The pages in HBM in the first step, where they were written: by default the first ones of the prompt."""
        return np.arange(self.info.pages) < self.info.capacity

    @abstractmethod
    def after(self, attended: Mask, placed: Mask) -> Mask:
        """The pages in HBM in the next step, after one that attended to `attended` with `placed` in HBM."""


def mask_fault(info: PlacementInfo, answer: object) -> str:
    """What is wrong with an answer of `first` or `after`; empty if nothing is."""
    if not isinstance(answer, np.ndarray) or answer.shape != (info.pages,) or answer.dtype != np.bool_:
        found = type(answer).__name__
        if isinstance(answer, np.ndarray):
            found = f"an array of {answer.dtype}{list(answer.shape)}"
        return f"expected a mask, bool[{info.pages}], found {found}"
    if answer.sum() > info.capacity:
        return f"more pages than HBM holds, found {int(answer.sum())}, expected {info.capacity} at most"
    return ""


def swapped(placed: Mask, wanted: Mask, worth: npt.NDArray[np.float64], capacity: int) -> Mask:
    """`placed` with the pages of `wanted` brought in, in descending order of `worth`, as far as there is room or a page
    that is worth less and not wanted."""
    out = placed.copy()
    coming = np.flatnonzero(wanted & ~placed)
    coming = coming[np.argsort(-worth[coming], kind="stable")]
    room = capacity - int(placed.sum())
    going = np.flatnonzero(placed & ~wanted)
    going = going[np.argsort(worth[going], kind="stable")]
    for place, page in enumerate(coming):
        if place < room:
            out[page] = True
            continue
        if place - room >= len(going):
            break
        victim = going[place - room]
        if worth[victim] >= worth[page]:
            break
        out[victim], out[page] = False, True
    return out
