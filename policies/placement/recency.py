"""Pages that are attended often of late lie in HBM, if moving them pays."""

from __future__ import annotations

import numpy as np

from policies.options import number
from policies.placement.base import Mask, Placement, PlacementInfo, swapped


class AttentionRecency(Placement):
    """A page comes to HBM when its mean attendance of late is more than `margin` above the least there.

    It replaces one that has less; where HBM has room, more than `margin` is enough.

    decay    weight of the past in the mean per step: 0.9 remembers about ten steps
    margin   difference of means, to the least in HBM, that pays for the two copies of a swap
    share    most of HBM's part of what a step attends; what is beyond stays in host memory, so that both are read
             beside each other. 0: the part with which both take the same time

    Source: written for kvsim after the observation of arXiv 2508.13231 that the relevance of tokens varies over tens of
    steps; the paper has no online policy.

    Complexity: O(pages log pages) per step.
    """

    def __init__(self, info: PlacementInfo, *, decay: float = 0.9, margin: float = 0.5, share: float = 0.0) -> None:
        super().__init__(info)
        self._decay = number("decay", decay, 0, 1)
        self._margin = number("margin", margin, 0, 1)
        self._share = number("share", share, 0, 1) or info.share
        self._mean = np.zeros(info.pages)

    def after(self, attended: Mask, placed: Mask) -> Mask:
        self._mean = self._decay * self._mean + (1 - self._decay) * attended
        if attended.any() and (attended & placed).sum() >= self._share * attended.sum():
            return placed  # host memory has no more than its part of what is read
        bar = self._mean[placed].min(initial=np.inf) + self._margin
        if placed.sum() < self.info.capacity:
            bar = self._margin
        return swapped(placed, ~placed & (self._mean > bar), self._mean, self.info.capacity)
