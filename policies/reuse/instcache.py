"""Answers to instructions that a model expects, stored before anybody asks (InstCache)."""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, exp, inf, pi, sqrt
from typing import NamedTuple

from policies.base import RequestView
from policies.options import nbytes, number, seconds, whole
from policies.reuse.base import ResponseCache
from traces.random import stream


class Predictability(NamedTuple):
    """A class of instructions: its share of all requests, and the normal distribution of their negative log likelihood
    under the model that predicts them, nats, from 0 on."""

    share: float
    mean: float
    deviation: float


LMSYS = (Predictability(0.3, 7.0, 3.0), Predictability(0.4, 18.517, 5.0), Predictability(0.3, 60.0, 20.0))
"""Synthetic: greetings and what else is common, short questions, and texts that nobody foresees. The shares, the
spreads and the first and the last mean are made up; the mean of the second class is calibrated to the one published
point, 51.34 % of the requests at 4.5 GB (arXiv 2411.13820v1, abstract, LMSys), with entries of 1,000 bytes."""


STEP, MOST = 0.01, 100.0
"""Nats at a time when the threshold is looked for, and where the search ends: exp(100) texts fit no memory."""


class InstCache(ResponseCache):
    """Holds the instructions that a model finds likeliest, with answers made in advance; they stay as they are.

    capacity      bytes for instructions and answers: the likeliest are stored until it is full
    entry_bytes   what one instruction and its answer take
    classes       the instructions of the load by predictability: [[share, mean nats, deviation], ...]; by default those
                  of LMSYS, which are synthetic
    longest       tokens of a prompt beyond which it is never found; by default none is too long
    lookup        what a lookup takes: one of a hash table in host memory

    A text that the model gives the negative log likelihood x has the probability exp(-x), if the model is right, so the
    texts up to a threshold T number the integral of exp(x) over the distribution of x up to T. The threshold is where
    they fill the capacity, and what is found is the share of requests below it. Each prompt draws its x, by the
    scenario's seed and what it says, or by the request where the trace does not tell: equal prompts share their fate.
    Whether a trace's own prompts are like this nobody knows from lengths and hashes; it is a model of other users.

    Source: Zou et al., "InstCache: A Predictive Cache for LLM Serving" (arXiv 2411.13820): pre-population by the
    negative log likelihood, hash table in host memory.

    Complexity: O(1).
    """

    def __init__(
        self,
        *,
        capacity: str | int = "4.5 GB",
        entry_bytes: int = 1000,
        classes: Sequence[Sequence[float]] | None = None,
        longest: int | None = None,
        lookup: float | str = "1 us",
    ) -> None:
        self.capacity = nbytes("capacity", capacity)
        self.lookup_s = seconds("lookup", lookup)
        entry = whole("entry_bytes", entry_bytes, 1, 2**40)
        self._longest = inf if longest is None else whole("longest", longest, 1, 2**62)
        self._classes = LMSYS if classes is None else _checked(classes)
        self.entries = self.capacity // entry
        self.used_bytes = self.entries * entry
        self.threshold = _threshold(self._classes, self.entries)
        """Negative log likelihood up to which instructions are stored, nats."""

    @property
    def expected_hits(self) -> float:
        """Share of the requests, none too long, that are found."""
        return below(self._classes, self.threshold)

    def lookup(self, request: RequestView) -> bool:
        if request.input_tokens > self._longest or not self.entries:
            return False
        keys = request.keys
        said = (keys[-1], request.input_tokens) if keys else (-1, request.index)
        draw = stream(self.seed, "reuse.instcache", *said)
        place = draw.random()
        drawn = self._classes[-1]
        for each in self._classes:
            if place < each.share:
                drawn = each
                break
            place -= each.share
        nats = -1.0
        while nats < 0:
            nats = draw.normal(drawn.mean, drawn.deviation)
        return bool(nats < self.threshold)


def below(classes: Sequence[Predictability], nats: float) -> float:
    """Share of requests with a negative log likelihood under `nats`."""
    found = 0.0
    for share, mean, deviation in classes:
        under = _normal(-mean / deviation)
        found += share * max(0.0, _normal((nats - mean) / deviation) - under) / (1 - under)
    return found


def texts(classes: Sequence[Predictability], nats: float, parts: int = 1000) -> float:
    """How many texts have a negative log likelihood under `nats`: the integral of exp(x) over its distribution, by the
    midpoint rule."""
    step = nats / parts
    return sum(step * _density(classes, (i + 0.5) * step) for i in range(parts))


def _density(classes: Sequence[Predictability], nats: float) -> float:
    """Texts per nat."""
    return sum(
        share
        / (1 - _normal(-mean / deviation))
        * exp(nats - ((nats - mean) / deviation) ** 2 / 2)
        / (deviation * sqrt(2 * pi))
        for share, mean, deviation in classes
    )


def _threshold(classes: Sequence[Predictability], entries: int) -> float:
    """Where so many texts lie below; MOST if there are no more."""
    found, nats = 0.0, 0.0
    while nats < MOST:
        more = STEP * _density(classes, nats + STEP / 2)
        if found + more >= entries:
            return nats + STEP * (entries - found) / more
        found += more
        nats += STEP
    return MOST


def _normal(z: float) -> float:
    return erfc(-z / sqrt(2)) / 2


def _checked(classes: Sequence[Sequence[float]]) -> tuple[Predictability, ...]:
    wanted = "a list of [share, mean nats, deviation] whose shares add up to 1"
    try:
        found = tuple(
            Predictability(
                number("share", share, 0, 1), number("mean", mean, 0), number("deviation", deviation, 0, above=True)
            )
            for share, mean, deviation in classes
        )
    except (TypeError, ValueError):
        raise ValueError(f"classes: found {classes!r}, expected {wanted}") from None
    if abs(sum(each.share for each in found) - 1) > 1e-9:
        raise ValueError(f"classes: found {classes!r}, expected {wanted}")
    return found
