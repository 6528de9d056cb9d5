"""A lower bound on the seconds of loading and recomputing in a hierarchy of tiers, from the optimal stack property."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hw_profiles.errors import InputError
from sim.cache.accesses import next_use
from sim.cache.belady import optimal_misses


class TierCost(NamedTuple):
    """A tier of `capacity` blocks, from which a block can be used after `load_s` seconds (0 where it is used)."""

    capacity: int
    load_s: float


class StackBound(NamedTuple):
    """`seconds` that no management of the tiers can beat, and how they come about.

    `steps`: (cumulative capacity in blocks, least accesses beyond it, seconds that each of them costs more than one
    within it), cheapest tier first; the last step leads to recomputing.
    """

    seconds: float
    steps: tuple[tuple[int, int, float], ...]


def stack_bound(keys: Sequence[int], tiers: Sequence[TierCost], recompute_s: float) -> StackBound:
    """The least load + recompute seconds for the accesses `keys` (blocks, numbered from 0), without queueing.

    An access costs the `load_s` of the tier that serves it, or `recompute_s`. Let the tiers be sorted by cost, with
    those that cost no less than recomputing left out, and let c_1 <= c_2 <= ... <= c_m = recompute_s be the costs.
    The cost of an access served by tier j is c_1 + (c_2 - c_1) + ... + (c_j - c_(j-1)), so

        seconds = accesses x c_1 + sum over k of (c_(k+1) - c_k) x (accesses not served by tiers 1 .. k)

    However blocks are placed, tiers 1 .. k together are a cache of their summed capacity, into which blocks come by
    being accessed: it misses at least as often as Belady's MIN with bypass of that size (`sim.cache.belady`), which is
    what is priced. A prefetch does not change this, as its load is counted too, only earlier. The bound is reached
    when moves away from the GPU are free, since MIN's contents at one size include those at every smaller one.
    SOURCE: R. L. Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal 9(2), 1970.

    It bounds one fixed sequence of accesses, made one by one: a system that serves the blocks of a request together,
    or requests in another order, makes another sequence. `recompute_s` and `load_s` must be the least that any block
    costs for the bound to hold where costs vary. Time on links and waiting in queues come on top; overlap of loads
    with compute hides seconds but does not remove them. Raises InputError for negative or non-finite input.
    """
    for where, values in (
        ("load_s", [tier.load_s for tier in tiers]),
        ("capacity", [tier.capacity for tier in tiers]),
        ("recompute_s", [recompute_s]),
    ):
        for value in values:
            if not (math.isfinite(value) and value >= 0):
                raise InputError("", path=where, found=value, allowed="a finite number, 0 or more")
    codes = np.unique(np.asarray(keys, np.int64), return_inverse=True)[1].reshape(-1).astype(np.int64)
    flat, following = codes.tolist(), next_use(codes).tolist()
    worth = sorted((tier for tier in tiers if tier.load_s < recompute_s), key=lambda tier: tier.load_s)
    costs = [*(tier.load_s for tier in worth), recompute_s]
    seconds = len(flat) * costs[0]
    steps = []
    held = 0
    for tier, dearer in zip(worth, costs[1:], strict=True):
        held += tier.capacity
        beyond = optimal_misses(flat, following, held)
        steps.append((held, beyond, dearer - tier.load_s))
        seconds += beyond * (dearer - tier.load_s)
    return StackBound(seconds, tuple(steps))
