"""What was attended last lies in HBM."""

from __future__ import annotations

import numpy as np

from policies.placement.base import Mask, Placement, PlacementInfo, swapped


class LeastRecentlyAttended(Placement):
    """Every page that a step attended comes to HBM, in the place of those attended longest ago.

    What recall systems do with their GPU cache, but that a page is read where it lies first.

    Source: least recently used; the online baseline that arXiv 2508.13231 leaves to others.

    Complexity: O(pages log pages) per step.
    """

    def __init__(self, info: PlacementInfo) -> None:
        super().__init__(info)
        self._last = np.full(info.pages, -1.0)
        self._step = 0

    def after(self, attended: Mask, placed: Mask) -> Mask:
        self._last[attended] = self._step
        self._step += 1
        return swapped(placed, attended & ~placed, self._last, self.info.capacity)
