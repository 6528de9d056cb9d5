"""How likely blocks of a category are to be used again soon, learnt from the uses seen so far."""

from __future__ import annotations

import math
from collections.abc import Iterable

Chance = tuple[float, float, float]
"""p, the mean in s, and the share of the time looked ahead, of one category; see ReuseModel."""
CONFIDENCE = 8.0
"""Uses of a category that count as much as what all categories together suggest (assumed)."""


class Uses:
    """Counts of one category: uses, uses that another use followed, and the seconds in between of those."""

    __slots__ = ("followed", "seconds", "uses")

    def __init__(self) -> None:
        self.uses = 0.0
        self.followed = 0.0
        self.seconds = 0.0

    def halve(self) -> None:
        """Let what was counted so far weigh half as much as what comes."""
        self.uses /= 2
        self.followed /= 2
        self.seconds /= 2


class ReuseModel:
    """A block that was last used `age` seconds ago, and not since, is used again within `life` seconds with probability

        P = p x e x (1 - exp(-life / mean)) / (1 - p + p x e),    e = exp(-age / mean)

    That is: a use is followed by another with probability p, after a time that is exponentially distributed with the
    given mean, and it is known that `age` seconds have brought none. p and the mean are those of the block's category,
    drawn toward those of all categories together while the category has few uses:

        p    = (followed + c p_all) / (uses + c),            p_all    = (followed_all + 1) / (uses_all + 2)
        mean = (seconds + c mean_all) / (followed + c),      mean_all = seconds_all / followed_all

    with c = CONFIDENCE. Uses whose successor has not come yet count as not followed. `window`: uses after which all
    counts are halved. O(1) per call, amortised.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._all = Uses()
        self._by_category: dict[object, Uses] = {}
        self._ages = 0.0
        self._leavers = 0.0
        self._since_halving = 0
        self.counted = 0
        """Uses counted so far."""

    def used(self, category: object) -> None:
        """A block of the category has been used."""
        found = self._by_category.get(category)
        if found is None:
            found = self._by_category[category] = Uses()
        found.uses += 1
        self._all.uses += 1
        self.counted += 1
        self._since_halving += 1
        if self._since_halving > self._window:
            self._since_halving = 0
            self._ages /= 2
            self._leavers /= 2
            for uses in (self._all, *self._by_category.values()):
                uses.halve()

    def followed(self, category: object, after_s: float) -> None:
        """A use that was counted for the category has been followed by another."""
        for uses in (self._by_category[category], self._all):
            uses.followed += 1
            uses.seconds += after_s

    def left(self, age_s: float) -> None:
        """A block left the cache `age_s` after its last use."""
        self._ages += age_s
        self._leavers += 1

    @property
    def life(self) -> float:
        """Mean age at which blocks have left the cache, s; infinite while none has."""
        return self._ages / self._leavers if self._leavers else math.inf

    def chance(self, category: object, life: float) -> Chance:
        """p, the mean in s (0: no time passes here) and the share of `life` (see the class) for a category."""
        return chance_of(self._by_category[category], *overall(self._all, life), life)


def overall(everything: Uses, life: float) -> tuple[float, float]:
    """p_all and mean_all of `ReuseModel` from the counts of all categories together."""
    p_all = (everything.followed + 1) / (everything.uses + 2)
    if everything.followed:
        return p_all, everything.seconds / everything.followed
    return p_all, life if 0 < life < math.inf else 1.0


def chance_of(own: Uses, p_all: float, mean_all: float, life: float) -> Chance:
    """`ReuseModel.chance` from the counts of a category and what is `overall`."""
    p = (own.followed + CONFIDENCE * p_all) / (own.uses + CONFIDENCE)
    mean = (own.seconds + CONFIDENCE * mean_all) / (own.followed + CONFIDENCE)
    return min(p, 1.0), mean, -math.expm1(-life / mean) if mean > 0 and life > 0 else 1.0


def likelihood(chances: Iterable[Chance], age: float) -> float:
    """The greatest of the probabilities that several categories have at one age, s.

    `probability` written out, since a scan asks for this most of all.
    """
    most = 0.0
    for p, mean, within in chances:
        late = p * math.exp(-age / mean) if mean > 0 else p
        if late:
            found = late * within / (1 - p + late)
            if found > most:
                most = found
    return most


def probability(p: float, mean: float, within: float, age: float) -> float:
    """The P of `ReuseModel` for a block of that age, s."""
    late = p * math.exp(-age / mean) if mean > 0 else p
    return late * within / (1 - p + late) if late else 0.0
