"""A lower bound on the seconds of loading and computing prompts in a hierarchy of tiers: the optimal stack property."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.cache.intervals import Reuses, least_missed
from sim.cache.prices import Prices
from traces.request import Floats, Ints, Trace

DEFINITION = (
    "Load + compute seconds: every prompt token at the price of where it comes from, with nothing else in the way. A "
    "token loaded from a tier costs its share of one load of a full step's tokens over an idle route, a token that is "
    "computed its share of a full step at its place in the prompt, a token in HBM nothing. The bound is the least that "
    "any management of tiers of these sizes could need for the same lookups in the same order (the stack property of "
    "Belady's MIN, tier by tier), without queueing. Regret = seconds / bound - 1."
)
ROUNDING = 1e-12
LEVELS = 8
"""Into how many parts prices are cut that differ from block to block. More bring the bound closer, at their cost."""


@dataclass(frozen=True, eq=False)
class Visits:
    """When a system looked prompts up, and how long it then had them in hand.

    For m requests of `trace`, by `rows` int64[m]: `looked_up` is when the request was looked up, `done` when the system
    let go of its blocks, in any unit of time. What a lookup finds it finds whole and at once. `reusable` int64[m]:
    leading tokens of the prompt that could be reused, at most; the others are computed always. `priced` bool[m]: False
    for requests whose seconds are left out, since it is not known when they used what (preempted ones). `answers`: the
    system may find the answer of a turn in the prompt of the next one (`Trace.carried_by`) without computing it there.
    """

    trace: Trace
    rows: Ints
    looked_up: Ints | Floats
    done: Ints | Floats
    reusable: Ints
    priced: npt.NDArray[np.bool_]
    answers: bool = False


class Step(NamedTuple):
    """Tiers up to this one hold `capacity` tokens; at least `missed` tokens were looked for that they do not have, of
    those that had been used before, and those cost at least `seconds` more than with these tiers alone."""

    capacity: int
    missed: int
    seconds: float


class Bound(NamedTuple):
    """`seconds` that no management of the tiers can beat: `first_s` for what was never used before, and the steps."""

    seconds: float
    first_s: float
    steps: tuple[Step, ...]


def regret(seconds: float, bound_s: float) -> float:
    """Seconds / bound - 1; what is no more than rounding is 0."""
    excess = seconds / bound_s - 1
    return 0.0 if abs(excess) < ROUNDING else excess


def lower_bound(visits: Visits, capacities: Sequence[int], prices: Prices, *, fetched_ahead: bool = False) -> Bound:
    """The least load + compute seconds of the prompts, without queueing, for tiers of `capacities` (tokens, HBM first).

    Let c_j be what a token costs from tier j (`Prices`), or from any tier behind it, and no more than computing it:
    c_1 <= c_2 <= ... <= c_m <= c_(m+1) = computing. A token that tier j serves costs c_1 + (c_2 - c_1) + ... +
    (c_j - c_(j-1)), so the seconds of all are

        tokens x c_1 + sum over k of (c_(k+1) - c_k) x (tokens not served by tiers 1 .. k)

    Tiers 1 .. k together are a cache of their summed capacity, into which a block comes only when a request uses it.
    So they cannot serve a token that was not used before (those are computed), and to serve one that was, they must
    have held it from the end of its last use to the lookup: what does not fit is at least `intervals.least_missed`.
    Where c_(k+1) - c_k differs from token to token it is cut into LEVELS parts, each over the tokens that cost at least
    as much: MIN over fewer tokens misses no more of them. Nothing is taken from how a system runs but the order and the
    times of its lookups, so the bound holds for one fixed sequence: another order is another sequence.

    With `fetched_ahead` blocks may move toward the GPU between uses (a prefetch), which breaks this for every k but the
    last: loading is then taken as free. Several caches side by side (replicas, nodes) count as one of their summed
    capacity, which can only miss less.

    SOURCE: the stack property of MIN, R. L. Mattson et al., "Evaluation techniques for storage hierarchies", IBM
    Systems Journal 9(2), 1970; the pricing by steps is kvsim's own.
    """
    uses = _uses(visits)
    compute_s = prices.to_compute_s(uses.start, uses.tokens)
    first_s = float(compute_s[uses.counted & (uses.begin == -np.inf)].sum())
    lengths = visits.trace.input_tokens[visits.rows]
    always = prices.from_start_s(lengths) - prices.from_start_s(visits.reusable)
    first_s += float(always[visits.priced].sum())
    again = uses.counted & (uses.begin > -np.inf) & (uses.tokens > 0)
    reuses = Reuses(uses.begin[again], uses.end[again], uses.tokens[again])
    each_s = compute_s[again] / reuses.tokens
    load_s = np.zeros(len(capacities)) if fetched_ahead else np.minimum.accumulate(prices.load_s[::-1])[::-1]
    seconds = first_s + float((np.minimum(load_s[0], each_s) * reuses.tokens).sum())
    steps = []
    for k, held in enumerate(np.cumsum(capacities).tolist()):
        further = load_s[k + 1] if k + 1 < len(load_s) else np.inf
        dearer = np.minimum(further, each_s) - np.minimum(load_s[k], each_s)
        steps.append(_step(reuses, dearer, held))
        seconds += steps[-1].seconds
    return Bound(seconds, first_s, tuple(steps))


def _step(reuses: Reuses, dearer: Floats, capacity: int) -> Step:
    """The least that tokens cost which cannot be kept in `capacity` tokens, where each costs `dearer` (s) then."""
    missed = least_missed(reuses, capacity)
    seconds = 0.0
    if missed and len(dearer):
        marks = np.unique(np.quantile(dearer, np.arange(LEVELS) / LEVELS, method="lower"))
        for below, mark in pairwise((0.0, *marks.tolist())):
            part = dearer >= mark
            tokens = missed if part.all() else least_missed(reuses.where(part), capacity)
            seconds += (mark - below) * tokens
    return Step(capacity, missed, seconds)


class _Uses(NamedTuple):
    """Blocks as requests use them, in order of lookup: when the last use before ended (-inf: never used before), when
    it was looked up, the tokens looked for and where they begin in the prompt, and whether their price counts."""

    begin: Floats
    end: Floats
    tokens: Ints
    start: Ints
    counted: npt.NDArray[np.bool_]


def _uses(visits: Visits) -> _Uses:
    trace = visits.trace
    order = np.lexsort((visits.rows, visits.looked_up))
    rows = visits.rows[order]
    first = trace.hash_offsets[rows]
    counts = trace.hash_offsets[rows + 1] - first
    owner = np.repeat(np.arange(len(rows)), counts)
    offsets = np.cumsum(counts) - counts
    place = np.arange(len(owner)) - offsets[owner]
    keys = trace.hash_ids[first[owner] + place]
    start = place * trace.block_tokens
    tokens = np.clip(visits.reusable[order][owner] - start, 0, trace.block_tokens)
    if visits.answers:
        tokens = np.maximum(0, tokens - _answered(trace, rows, owner, start, keys))
    end = visits.looked_up[order].astype(np.float64)[owner]
    done = visits.done[order].astype(np.float64)[owner]
    # Sorted by key, uses of a block are side by side in order of lookup: the latest end of those before is a running
    # maximum that starts afresh for every block.
    by_key = np.argsort(keys, kind="stable")
    same = np.concatenate(([False], keys[by_key][1:] == keys[by_key][:-1])) if len(keys) else np.zeros(0, bool)
    begin = np.full(len(keys), -np.inf)
    latest = _latest_before(done[by_key], same)
    begin[by_key] = latest
    return _Uses(begin, end, tokens, start, visits.priced[order][owner])


def _answered(trace: Trace, rows: Ints, owner: Ints, start: Ints, keys: Ints) -> Ints:
    """Tokens of each use of a block that the answer of the turn before may have left in a cache: int64[uses].

    Taken as free, for this turn and for whoever uses the block first: a bound may ask for less than what is needed.
    """
    size, free = trace.block_tokens, np.zeros(len(keys), np.int64)
    if trace.carried_by is None:
        return free
    place = np.full(len(trace), -1)
    before = np.flatnonzero(trace.carried_by >= 0)
    place[trace.carried_by[before]] = before
    said = place[rows][owner]
    known = np.where(said >= 0, trace.input_tokens[said] // size * size, 0)  # what the prompt named itself
    ends = np.where(said >= 0, trace.input_tokens[said] + trace.output_tokens[said], 0)
    mine = np.where(start >= known, np.clip(ends - start, 0, size), 0)
    _, first, block = np.unique(keys, return_index=True, return_inverse=True)  # first: in order of lookup
    most = np.zeros(len(first), np.int64)
    np.maximum.at(most, block.reshape(-1), mine)
    free[first] = most
    return np.maximum(free, mine)


def _latest_before(values: Floats, follows: npt.NDArray[np.bool_]) -> Floats:
    """The greatest of the values before each in its group, -inf for the first; a group begins where not `follows`."""
    group = np.cumsum(~follows)
    order = np.lexsort((values, group))
    # Ranks rise from group to group, so a running maximum over all of them stays within each.
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values))
    latest = values[order][np.maximum.accumulate(rank)] if len(values) else values
    found = np.full(len(values), -np.inf)
    found[1:] = np.where(follows[1:], latest[:-1], -np.inf)
    return found
