"""What a token costs by where it comes from: seconds to load it from a tier, seconds to compute it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.hierarchy.offload import Costs
from traces.request import Floats, Ints


@dataclass(frozen=True, eq=False)
class Prices:
    """Seconds per token, with nothing else in the way.

    load_s     from each tier, nearest first; the first is HBM, where a token is used at no cost
    compute_s  float64[m]: to compute a token of the chunk i of a prompt, tokens i x `chunk` to (i + 1) x `chunk` - 1,
               never less than in the chunk before; later tokens cost as much as the last chunk's
    """

    load_s: tuple[float, ...]
    compute_s: Floats
    chunk: int

    def from_start_s(self, tokens: Ints) -> Floats:
        """Seconds to compute the first `tokens` of a prompt."""
        chunks = np.minimum(tokens // self.chunk, len(self.compute_s) - 1)
        before = np.concatenate(([0.0], np.cumsum(self.compute_s * self.chunk)))
        seconds: Floats = before[chunks] + (tokens - chunks * self.chunk) * self.compute_s[chunks]
        return seconds

    def to_compute_s(self, start: Ints, tokens: Ints) -> Floats:
        """Seconds to compute `tokens` tokens of a prompt that begin at token `start`."""
        return self.from_start_s(start + tokens) - self.from_start_s(start)


def prices_of(costs: Costs, tiers: Sequence[str], *, chunk: int, longest: int, token_bytes: int) -> Prices:
    """The prices of a hierarchy whose tiers are `tiers`, HBM first, for prompts of up to `longest` tokens.

    A token's share of a long copy and of a full step, so that neither set-up time nor a batch that is too small is
    held against it: load_s = (seconds of one load of `chunk` tokens over an idle route) / `chunk`, compute_s[i] =
    (seconds of a step that computes `chunk` tokens after i x `chunk` others) / `chunk`, with `chunk` the tokens of a
    full step (`sim.framework_spec.full_step`). `token_bytes`: KV of a token on one GPU.
    """
    load_s = (0.0, *(costs.load_s(tier, chunk * token_bytes) / chunk for tier in tiers[1:]))
    chunks = max(1, -(-longest // chunk))
    compute_s = np.array([costs.recompute_s(i * chunk, chunk) / chunk for i in range(chunks)])
    return Prices(load_s, np.maximum.accumulate(compute_s), chunk)


def spent_s(prices: Prices, lengths: Ints, hits: Ints) -> tuple[float, float]:
    """(load, compute) seconds of prompts of `lengths` int64[m], tokens, of which tiers served `hits` int64[m, tiers].

    What a prompt reuses is its start, so what is computed is its end.
    """
    load_s = float((hits * np.array(prices.load_s)).sum())
    compute_s = prices.from_start_s(lengths) - prices.from_start_s(hits.sum(axis=1))
    return load_s, float(compute_s.sum())
