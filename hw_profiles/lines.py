"""Quantities of a sequence that grow with it, as piecewise-linear functions, so that a batch sums them without looking
at any sequence: the sum over a batch is the same function of the sums of its terms (`sim.engine.decoding`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hw_profiles.errors import InputError

ROUNDING = 1e-12
"""A whole token that arithmetic makes a little more of is that token."""

Caps = tuple[tuple[int, float], ...]
"""(limit w in tokens, amount per token of min(x, w)), ascending by limit, no limit twice."""


@dataclass(frozen=True)
class Line:
    """f(n, P) = base + slope n + sum a min(n, w) + prompt P + sum a min(P, w) for a sequence with a prompt of P tokens
    and a context of n >= P tokens (prompt and answer so far). The unit is that of whoever uses it: tokens, bytes, FLOP.
    """

    base: float = 0.0
    slope: float = 0.0
    caps: Caps = ()
    prompt: float = 0.0
    prompt_caps: Caps = ()

    def at(self, context: float, prompt: float) -> float:
        """The value for one sequence."""
        value = self.base + self.slope * context + self.prompt * prompt
        value += sum(a * min(context, w) for w, a in self.caps)
        return value + sum(a * min(prompt, w) for w, a in self.prompt_caps)

    def __add__(self, other: Line) -> Line:
        return Line(
            self.base + other.base,
            self.slope + other.slope,
            _merged(self.caps + other.caps),
            self.prompt + other.prompt,
            _merged(self.prompt_caps + other.prompt_caps),
        )

    def __sub__(self, other: Line) -> Line:
        return self + other * -1.0

    def __mul__(self, factor: float) -> Line:
        return Line(
            self.base * factor,
            self.slope * factor,
            _merged(tuple((w, a * factor) for w, a in self.caps)),
            self.prompt * factor,
            _merged(tuple((w, a * factor) for w, a in self.prompt_caps)),
        )

    __rmul__ = __mul__

    @property
    def zero(self) -> bool:
        """True if it is 0 everywhere."""
        return self == NOTHING

    @property
    def of_prompt(self) -> bool:
        """True if it depends on the prompt's own length, and not only on the context."""
        return bool(self.prompt or self.prompt_caps)

    def capped(self, limit: float) -> Line:
        """min(f, limit), for an f that grows ever more slowly from at most `limit`.

        The context (or prompt) at which f reaches the limit is rounded up to a whole token. An f of context and prompt
        may only depend on prompts that reach the limit by themselves (a part of the prompt and all that follows).
        Raises InputError for any other f: what the combination means is not defined.
        """
        if not self.of_prompt:
            return self._capped(limit)
        if not (self.caps or self.slope):
            line = Line(self.base, self.prompt, self.prompt_caps)._capped(limit)
            return Line(line.base, 0.0, (), line.slope, line.caps)
        own = replace(self, prompt=0.0, prompt_caps=())
        whole = self.at_prompt()
        whole = Line(whole.base, whole.prompt, whole.prompt_caps)
        if own._concave(limit) and whole._concave(limit):
            reach = whole._reaches(limit)
            before = [(w, a) for w, a in self.prompt_caps if w < reach]
            if not before and not self.prompt + sum(a for _, a in self.prompt_caps):
                return own._capped(limit)
        raise _undefined()

    def at_prompt(self) -> Line:
        """f at the end of the prompt, which stays as it is from then on: n = P."""
        return Line(self.base, 0.0, (), self.slope + self.prompt, _merged(self.caps + self.prompt_caps))

    def _capped(self, limit: float) -> Line:
        """`capped`, of an f that depends on the context alone."""
        if not (self.caps or self.slope):
            return replace(self, base=min(self.base, limit))
        if not self._concave(limit):
            raise _undefined()
        reach = self._reaches(limit)
        if math.isinf(reach):
            return self
        end = math.ceil(reach * (1 - ROUNDING))
        caps = tuple((min(w, end), a) for w, a in self.caps)
        return Line(self.base, 0.0, _merged((*caps, (end, self.slope)) if self.slope else caps))

    def _concave(self, limit: float) -> bool:
        """True if it grows with the context, ever more slowly, from at most `limit`."""
        return self.base <= limit and self.slope >= 0 and all(a > 0 for _, a in self.caps)

    def _reaches(self, limit: float) -> float:
        """The context at which f, concave and not of the prompt, reaches `limit`; infinite if never."""
        ends = [w for w, _ in self.caps]
        for end in ends:
            if self.at(end, 0) >= limit:
                before = max((w for w in ends if w < end), default=0)
                low = self.at(before, 0)
                return before + (limit - low) * (end - before) / (self.at(end, 0) - low)
        last = ends[-1] if ends else 0
        if not self.slope:
            return math.inf
        return last + (limit - self.at(last, 0)) / self.slope


def _undefined() -> InputError:
    return InputError("this combination of policies within a sequence cannot be priced: a budget on top of one")


def _merged(caps: Caps) -> Caps:
    amounts: dict[int, float] = {}
    for w, a in caps:
        amounts[w] = amounts.get(w, 0.0) + a
    return tuple((w, a) for w, a in sorted(amounts.items()) if a)


NOTHING = Line()
"""0 for every sequence."""

CONTEXT = Line(slope=1.0)
"""Every token of the context."""


def upto(tokens: int) -> Line:
    """min(context, tokens)."""
    return Line(caps=((tokens, 1.0),))


def constant(value: float) -> Line:
    """The same for every sequence."""
    return Line(base=value)


def through(points: Sequence[tuple[int, float]], slope: float = 0.0) -> Line:
    """The line through (context, value) points, the first at 0, ascending; `slope` after the last."""
    line = Line(base=points[0][1], slope=slope)
    caps = []
    slopes = [*((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(points)), slope]
    for (knot, _), (before, behind) in zip(points[1:], pairwise(slopes), strict=True):
        if before != behind:
            caps.append((knot, before - behind))
    return replace(line, caps=tuple(caps))


def lesser(a: Line, b: Line) -> Line:
    """min(a, b) of two lines in the context; where they cross is rounded up to a whole token.

    Raises InputError for lines in the prompt.
    """
    if a.of_prompt or b.of_prompt:
        raise InputError("this combination of policies within a sequence cannot be priced: two shares of a prompt")
    knots = sorted({0, *(w for w, _ in a.caps), *(w for w, _ in b.caps)})
    marks = set(knots)
    for low, high in zip(knots, [*knots[1:], knots[-1] + 1], strict=True):
        apart = a.at(low, 0) - b.at(low, 0)
        change = (a.at(high, 0) - b.at(high, 0) - apart) / (high - low)
        if apart * change < 0:
            crossing = low - apart / change
            if crossing < high or high > knots[-1]:
                marks.add(math.ceil(crossing))
    ends = [(x, min(a.at(x, 0), b.at(x, 0))) for x in sorted(marks)]
    last = ends[-1][0]
    return through(ends, min(a.at(last + 1, 0), b.at(last + 1, 0)) - ends[-1][1])


def newest(tokens: Line, limit: int) -> Line:
    """min(tokens, limit): how many of `tokens` are among the newest `limit`.

    Where this has no line of its own (what depends on context and prompt), answers are taken as part of the prompt,
    which matters to prompts shorter than `limit` alone.
    """
    try:
        return tokens.capped(limit)
    except InputError:
        whole = Line(tokens.base, tokens.slope + tokens.prompt, _merged(tokens.caps + tokens.prompt_caps))
        return lesser(whole, constant(limit))
