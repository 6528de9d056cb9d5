"""How many experts of a layer a step reads, and how many rows they compute.

A token selects `top_k` of E experts. If q_e is the chance that it selects expert e, and tokens are independent, a step
of n tokens reads expert e with chance 1 - (1 - q_e)^n: in all sum_e 1 - (1 - q_e)^n experts, which is
E (1 - (1 - top_k / E)^n) when all are equally popular (uniform coverage, as in hw_profiles.mlp.expected_experts).

Popularity is uniform (skew 0) or Zipf: expert e of E has p_e proportional to e^-skew, and q_e = min(1, c p_e) with c
such that the q_e add up to top_k: nobody is selected twice by a token. Skewed routing touches fewer experts in small
steps. Public kernel tables use power laws too: aiconfigurator measures MoE kernels under "balanced" and under power-law
loads of exponent 1.01 and 1.2. The mapping from popularity to q_e is kvsim's own.

Under expert parallelism whole experts lie on ranks, and the layer ends when the rank with the most work does. Tokens
draw independently, so the experts that are read on rank r are a sum of independent chances (Poisson binomial), and its
rows R_r are nearly normal, with mean n sum q_e and variance n sum q_e (1 - q_e). Charged is the expected maximum over
ranks of either,

    E max X_r = integral of 1 - prod_r P(X_r <= x) dx

as if ranks were independent. They are not, since the rows of all add up to n top_k; but with equal ranks that takes
just as much from the variance of each as it adds to the distance of the largest from the mean, so for rows the formula
is exact there. tests/sim/test_experts.py holds it to simulated routers.

Placement: `contiguous`, experts in order of their numbers (vLLM's default, `linear`); which of them are popular has
nothing to do with their numbers, so charged is the mean of LAYOUTS shuffles. `balanced`: the most popular experts have
copies in `redundant` further places, and all are dealt out by load, as DeepSeek's EPLB does (deepseek-ai/EPLB, eplb.py:
replicate_experts, balanced_packing), from loads that are known exactly; a token takes any copy.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hw_profiles.mlp import MoE, expected_experts
from traces.random import stream

Floats = npt.NDArray[np.float64]
PlacementName = Literal["contiguous", "balanced"]
LAYOUTS = 8
"""Shuffles of popular experts over ranks that `contiguous` is the mean of."""
_POINTS = 129


class Placement(NamedTuple):
    """Where experts lie. redundant: places for copies, over all ranks."""

    policy: PlacementName = "contiguous"
    redundant: int = 0

    def slots(self, experts: int, ranks: int) -> int:
        """Places for experts on each rank."""
        return -(-(experts + self.redundant) // ranks)


CONTIGUOUS = Placement()


def selection(experts: int, top_k: int, skew: float) -> Floats:
    """q_e: the chance that a token selects each expert, most popular first; they add up to `top_k`."""
    popularity = np.arange(1, experts + 1, dtype=np.float64) ** -skew
    chance = np.zeros(experts)
    always = 0  # experts that every token selects
    while always < top_k:
        rest = popularity[always:]
        chance[always:] = (top_k - always) * rest / rest.sum()
        if chance[always] <= 1.0:
            break
        chance[always] = 1.0
        always += 1
    return chance


def placed(chance: Floats, ranks: int, placement: Placement = CONTIGUOUS) -> Floats:
    """The chance that a token goes to each place: float64[layouts, ranks, places], 0 for a place that is empty."""
    slots = placement.slots(len(chance), ranks)
    if placement.policy == "balanced":
        return _balanced(chance, ranks, slots, placement.redundant)[np.newaxis]
    whole = np.zeros((LAYOUTS if np.ptp(chance) else 1, ranks * slots))
    for i, layout in enumerate(whole):
        layout[: len(chance)] = chance[stream(0, "experts", i).permutation(len(chance))] if len(whole) > 1 else chance
    return whole.reshape(len(whole), ranks, slots)


def _balanced(chance: Floats, ranks: int, slots: int, redundant: int) -> Floats:
    """Copies for whoever has the most load per copy, then the largest loads first, each to the least loaded rank."""
    copies = np.ones(len(chance))
    for _ in range(redundant):
        copies[np.argmax(chance / copies)] += 1
    loads = np.sort(np.repeat(chance / copies, copies.astype(np.int64)))[::-1]
    found, used = np.zeros((ranks, slots)), np.zeros(ranks, dtype=np.int64)
    for load in loads:
        rank = int(np.argmin(np.where(used < slots, found.sum(axis=1), np.inf)))
        found[rank, used[rank]] = load
        used[rank] += 1
    return found


class ExpertLoad:
    """Expected load of the experts of one layer on the rank that has most of it.

    skew: the Zipf exponent, 0 uniform. Where every rank has a part of all experts (no expert parallelism) all are
    alike, and `placement` means nothing.
    """

    def __init__(self, moe: MoE, skew: float = 0.0, placement: Placement = CONTIGUOUS) -> None:
        self._moe = moe
        self._chance = selection(moe.experts, moe.top_k, skew) if skew else None
        self._places: Floats | None = None
        if moe.local < moe.experts:
            every = np.full(moe.experts, moe.share) if self._chance is None else self._chance
            self._places = placed(every, -(-moe.experts // moe.local), placement)

    def touched(self, tokens: int) -> float:
        """Experts that at least one of `tokens` tokens selects, expected; on the rank with the most of them."""
        if self._places is not None:
            return _most_touched(1.0 - (1.0 - self._places) ** tokens)
        if self._chance is None:
            return expected_experts(self._moe.local, self._moe.share, tokens)
        return float((1.0 - (1.0 - self._chance) ** tokens).sum())

    def rows(self, tokens: int) -> float:
        """Rows (token, expert) that a step of `tokens` tokens brings, expected; to the rank with the most."""
        if self._places is not None:
            mean = tokens * self._places.sum(axis=2)
            most = _most_normal(mean, np.sqrt(tokens * (self._places * (1.0 - self._places)).sum(axis=2)))
            return max(most, self.touched(tokens))
        if self._chance is None:
            return tokens * self._moe.share * self._moe.local
        return tokens * float(self._chance.sum())

    def imbalance(self, tokens: int) -> float:
        """Rows of the rank with the most / rows of a rank on average; 1 without expert parallelism."""
        if self._places is None:
            return 1.0
        ranks: int = self._places.shape[1]
        return self.rows(tokens) * ranks / (tokens * self._moe.top_k)


def _most_touched(chance: Floats) -> float:
    """E max over ranks of how many of its places are touched, each with its `chance`: float64[layouts, ranks, places].

    Mean over layouts."""
    layouts, ranks, slots = chance.shape
    pmf = np.zeros((layouts, ranks, slots + 1))
    pmf[:, :, 0] = 1.0
    for place in range(slots):
        p = chance[:, :, place, np.newaxis]
        more = pmf[:, :, :-1] * p
        pmf *= 1.0 - p
        pmf[:, :, 1:] += more
    below = np.minimum(np.cumsum(pmf, axis=2), 1.0).prod(axis=1)
    return float((1.0 - below[:, :-1]).sum(axis=1).mean())


def _most_normal(mean: Floats, sigma: Floats) -> float:
    """E max over ranks of normal numbers: float64[layouts, ranks]. Mean over layouts."""
    low, high = (mean - 5 * sigma).max(axis=1), (mean + 6 * sigma).max(axis=1)
    x = np.linspace(low, high, _POINTS)[:, :, np.newaxis]
    below = _normal_below((x - mean) / np.maximum(sigma, 1e-12)).prod(axis=2)
    area = ((below[1:] + below[:-1]) / 2).sum(axis=0) * (high - low) / (_POINTS - 1)
    return float((high - area).mean())


def _normal_below(x: Floats) -> Floats:
    """The normal distribution function, to 1e-7. SOURCE: Abramowitz and Stegun, 26.2.17."""
    t = 1.0 / (1.0 + 0.2316419 * np.abs(x))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper: Floats = np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * series
    return np.where(x < 0, upper, 1.0 - upper)
