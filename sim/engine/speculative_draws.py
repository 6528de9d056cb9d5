"""How many drafted tokens each verifying step of an answer keeps, drawn by place in the answer.

Every place p of an answer has a number u_p of a Philox stream of its request. The token that is drafted for p, as the
j-th of its step, is right where u_p < a_j; a step keeps drafted tokens up to the first wrong one and adds one of the
model's own (Leviathan et al. 2023, "Fast inference from transformers via speculative decoding", arXiv 2211.17192,
algorithm 1). A step looks only at places that no step before it has settled, so with equal a_j = a the kept tokens of
the steps are independent, each 1 + a geometric number cut off at k: E = (1 - a^(k+1)) / (1 - a) (equation 1).

Draws belong to places, not to steps: whatever else is in the batch, how often a sequence is preempted and how long the
draft is, the same token of the same request is easy or hard to guess.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from traces.random import stream

Ints = npt.NDArray[np.int64]


class VerifiedSteps(NamedTuple):
    """The verifying steps of what is left of an answer: int64[steps] each.

    drafted   tokens that the step verifies beside the last one known
    accepted  those of them that are right, up to the first that is not; beyond the end of the answer too
    kept      tokens that the answer gains: one more than accepted, cut off at its end
    """

    drafted: Ints
    accepted: Ints
    kept: Ints


class Acceptance:
    """Draws of one run. tokens: k, drafted per step. chances: a_1 ... a_k. match: chance that there is a draft at all
    (n-grams that do not occur before leave nothing to propose)."""

    def __init__(self, tokens: int, chances: Listed[float], match: float, seed: int) -> None:
        self.tokens = tokens
        self._chances = list(chances)
        self._match = match
        self._seed = seed

    def steps(self, request: int, generated: int, output: int) -> VerifiedSteps:
        """The steps that take a request from `generated` tokens of its answer (at least one) to all `output`."""
        places = np.arange(generated, output)
        right = np.ones(len(places), dtype=np.bool_)
        accepted = np.zeros(len(places), dtype=np.int64)
        easy = stream(self._seed, "speculation", request).random(output + self.tokens)
        for j, chance in enumerate(self._chances):
            right &= easy[places + j] < chance
            accepted += right
        drafted = np.full(len(places), self.tokens, dtype=np.int64)
        if self._match < 1.0:
            found = stream(self._seed, "speculation.match", request).random(output)[places] < self._match
            drafted *= found
            accepted *= found
        gains = (accepted + 1).tolist()
        starts, place = [], 0
        while place < len(gains):
            starts.append(place)
            place += gains[place]
        at = np.array(starts, dtype=np.int64)
        kept = np.diff(at, append=len(places))
        return VerifiedSteps(drafted[at], accepted[at], kept)
