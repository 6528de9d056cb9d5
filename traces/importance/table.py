"""The provider of published tables: nothing is fitted, and what no paper prints is refused."""

from __future__ import annotations

import math

from hw_profiles.errors import InputError
from hw_profiles.lines import Line
from traces.importance import facts
from traces.importance.curves import through
from traces.importance.facts import Fact
from traces.importance.pages import PAGE_TOKENS
from traces.importance.provider import check_sizes
from traces.importance.published import CACHED, LAYERS, RECALLS, RESOLUTION, recalls_at
from traces.importance.tokens import KEYS_AT

HITS = (4096, 128, 0.6)
"""(cached tokens, block tokens, hit ratio): the one point of `facts.HITS`."""
MASSES = (0.9, 0.99)
ALL_BUT_ONE = 10 * PAGE_TOKENS
"""Tokens that hold 0.99 (`facts.MASS`)."""


class Table:
    """ArkVale's recalls, InfiniGen's keys, PQCache's hit ratio; between printed numbers by logarithms."""

    name = "table"
    about = (
        "published tables (recalls ArkVale Fig. 4b, keys InfiniGen, hit ratio PQCache), each of its "
        "paper's own models and contexts; what they do not print is refused"
    )
    notes: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[Fact, ...]:
        """All published."""
        return tuple(
            Fact(fact.quantity, fact.value, fact.source, "published table", fact.system)
            for fact in (facts.RECALLS, facts.MASS, facts.KEYS, facts.HITS)
        )

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        """None in contexts that the cache holds; one page longer, and beyond, the mean that is printed."""
        check_sizes(selected, cached, page_tokens)
        if page_tokens != PAGE_TOKENS:
            raise _outside("page size of recalls", page_tokens, f"{PAGE_TOKENS} tokens")
        rows = tuple(RECALLS)
        if not rows[0] <= selected <= rows[-1]:
            raise _outside("selected pages of recalls", selected, f"{rows[0]} to {rows[-1]}")
        if cached > CACHED[-1]:
            raise _outside("cached pages of recalls", cached, f"{selected} to {CACHED[-1]}")
        low = max(row for row in rows if row <= selected)
        high = min(row for row in rows if row >= selected)
        shares = [_row(row, cached / selected * row) / row for row in (low, high)]
        part = math.log(selected / low) / math.log(high / low) if high > low else 0.0
        value = selected * _between(shares[0], shares[1], part, RESOLUTION / 2 / LAYERS / selected)
        return through([(cached * page_tokens, 0.0), ((cached + 1) * page_tokens, value)])

    def keys_for(self, mass: float) -> Line:
        """For 0.9 as InfiniGen prints it; for 0.99 ArkVale's ten pages."""
        if mass == MASSES[0]:
            return through(KEYS_AT)
        if mass == MASSES[1]:
            return through([(0, 0.0), (ALL_BUT_ONE, float(ALL_BUT_ONE))])
        raise _outside("mass of keys_for", mass, " or ".join(map(str, MASSES)))

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        """The one ratio that is printed."""
        cached, block, ratio = HITS
        if (cached_tokens, block_tokens) != (cached, block):
            found = f"{cached_tokens} tokens in blocks of {block_tokens}"
            raise _outside("cache of hit_ratio", found, f"{cached} tokens in blocks of {block}")
        return ratio

    def coverage(self, kept: float, context: float) -> float:
        """By logarithm of what is missed, through 0.9 and 0.99; more tokens than hold 0.99 count as that."""
        if kept >= context:
            return 1.0
        ends = [(self.keys_for(mass).at(context, context), mass) for mass in MASSES]
        below, missed = 0.0, 0.0  # tokens, and the logarithm of the mass that they miss
        for tokens, mass in ends:
            if kept <= tokens:
                return -math.expm1(missed + (math.log1p(-mass) - missed) * (kept - below) / (tokens - below))
            below, missed = tokens, math.log1p(-mass)
        return MASSES[-1]


def _row(selected: int, cached: float) -> float:
    """Recalls of a printed row; a cache beyond its last column counts as that."""
    columns = CACHED[CACHED.index(selected) :]
    cached = min(cached, columns[-1])
    low = max(column for column in columns if column <= cached + 1e-9)
    high = min(column for column in columns if column >= cached - 1e-9)
    part = math.log(cached / low) / math.log(high / low) if high > low else 0.0
    return _between(recalls_at(selected, low), recalls_at(selected, high), part, RESOLUTION / 2 / LAYERS)


def _between(low: float, high: float, part: float, least: float) -> float:
    """By logarithm; what is printed as none is `least`, half of what could be told, on the way to none."""
    if part <= 0 or part >= 1:
        return high if part >= 1 else low
    return math.exp((1 - part) * math.log(max(low, least)) + part * math.log(max(high, least)))


def _outside(what: str, found: object, allowed: str) -> InputError:
    text = f"importance: table has no such {what}"
    return InputError(text, found=found, allowed=f"{allowed}; or importance: synthetic")
