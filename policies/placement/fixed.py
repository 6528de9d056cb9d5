"""Placements that never change."""

from __future__ import annotations

import numpy as np

from policies.placement.base import Mask, Placement


class HostOnly(Placement):
    """Everything in host memory: the worst placement, and what offloading without a cache does.

    Source: the static baseline of arXiv 2508.13231.

    Complexity: O(1).
    """

    def first(self) -> Mask:
        return np.zeros(self.info.pages, dtype=np.bool_)

    def after(self, attended: Mask, placed: Mask) -> Mask:
        return placed


class Static(Placement):
    """HBM until it is full, the rest of the prompt in host memory.

    Source: the static baseline of arXiv 2508.13231.

    Complexity: O(1).
    """

    def after(self, attended: Mask, placed: Mask) -> Mask:
        return placed


class Proportional(Placement):
    """Pages dealt to HBM and host memory in proportion to their rates, as far as HBM has room.

    Both are then read in about the same time if all pages are attended, or any at random.

    Source: bandwidth-proportional interleaving, as of memory policies of NUMA systems.

    Complexity: O(1).
    """

    def first(self) -> Mask:
        share = min(self.info.share, self.info.capacity / self.info.pages)
        places = np.arange(self.info.pages + 1) * share
        return np.asarray(np.diff(np.floor(places + 1e-9)) > 0)

    def after(self, attended: Mask, placed: Mask) -> Mask:
        return placed
