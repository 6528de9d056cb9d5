"""How many experts of a layer a step reads, and how many rows they compute.

A token selects `top_k` of E experts. If q_e is the chance that it selects expert e, and tokens are independent, a step
of n tokens reads expert e with chance 1 - (1 - q_e)^n: in all sum_e 1 - (1 - q_e)^n experts, which is
E (1 - (1 - top_k / E)^n) when all are equally popular (uniform coverage, as in hw_profiles.mlp.expected_experts).

Popularity is uniform (skew 0) or Zipf: expert e of E has p_e proportional to e^-skew, and q_e = min(1, c p_e) with c
such that the q_e add up to top_k: nobody is selected twice by a token. Skewed routing touches fewer experts in small
steps. Public kernel tables use power laws too: aiconfigurator measures MoE kernels under "balanced" and under power-law
loads of exponent 1.01 and 1.2. The mapping from popularity to q_e is kvsim's own.

Under expert parallelism whole experts are dealt out to ranks in order of popularity, as a load balancer would place
them, and the rank with the most popular one is charged: the others wait for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hw_profiles.mlp import MoE, expected_experts

Floats = npt.NDArray[np.float64]


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


class ExpertLoad:
    """Expected load of the experts of one layer that the busiest rank holds. `skew`: the Zipf exponent, 0 uniform."""

    def __init__(self, moe: MoE, skew: float = 0.0) -> None:
        self._moe = moe
        self._chance: Floats | None = None
        if skew:
            ranks = -(-moe.experts // moe.local)
            self._chance = selection(moe.experts, moe.top_k, skew)[::ranks][: moe.local]

    def touched(self, tokens: int) -> float:
        """Experts on this rank that at least one of `tokens` tokens selects, expected."""
        if self._chance is None:
            return expected_experts(self._moe.local, self._moe.share, tokens)
        return float((1.0 - (1.0 - self._chance) ** tokens).sum())

    def rows(self, tokens: int) -> float:
        """Rows (token, expert) that the experts on this rank compute in a step of `tokens` tokens, expected."""
        if self._chance is None:
            return tokens * self._moe.share * self._moe.local
        return tokens * float(self._chance.sum())
