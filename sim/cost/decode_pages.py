"""Decode attention by attended tokens, remembered: the strides of short requests run over the same few times again."""

from __future__ import annotations

from typing import Final

import numpy as np

from sim.cost.layer import Floats, LayerCost

PAGE_TOKENS: Final = 1 << 14
"""Attended tokens of a page: its times take twice 128 KiB."""
LEAST_ASKED: Final = 16
"""Strides within a page before it is made: that takes as long as so many of them."""
MOST_PAGES: Final = 256
"""Pages that are kept; then all are let go."""
_TOKENS: Final = np.arange(PAGE_TOKENS, dtype=np.float64)
_MOST_SEQS: Final = 1 << 20


class Page:
    """Times of one number of sequences by attended tokens: of the attention, and of whole steps."""

    __slots__ = ("attention", "fixed", "seconds")

    def __init__(self, attention: Floats) -> None:
        attention.flags.writeable = False
        self.attention = attention
        self.seconds = attention
        self.fixed = 0.0
        """What `seconds` has beside the attention."""

    def charge(self, fixed: float) -> None:
        """Let whole steps take so many seconds beside the attention."""
        self.fixed = fixed
        self.seconds = self.attention + fixed
        self.seconds.flags.writeable = False


class DecodePages:
    """Attention of all `layers`, which are of one kind and attend everything; None: nothing is remembered.

    A page has the times of one number of sequences for each whole number of attended tokens, by the operations of
    `LayerCost.decode_steps` one by one, so what is read from it has the same bits as what is computed anew.
    """

    def __init__(self, layers: LayerCost | None) -> None:
        self._layers = layers
        self._pages: dict[int, Page] = {}
        self._asked: dict[int, int] = {}

    def of(self, seqs: float, context: float, steps: int) -> Floats | None:
        """Times of `steps` steps from `context` attended tokens on, `seqs` more each: float64[steps], not to be
        changed. None if they are not remembered."""
        count, attended = int(seqs), int(context)
        if count != seqs or attended != context:
            return None
        page = self._page(count, attended, steps)
        if page is None:
            return None
        first = attended % PAGE_TOKENS
        return page.attention[first : first + count * (steps - 1) + 1 : count]

    def steps_of(self, seqs: int, context: int, steps: int, fixed: float) -> tuple[Floats, Floats] | None:
        """The same times, before them those of whole steps that take `fixed` seconds beside."""
        page = self._page(seqs, context, steps)
        if page is None:
            return None
        if page.fixed != fixed:
            page.charge(fixed)
        first = context % PAGE_TOKENS
        inside = slice(first, first + seqs * (steps - 1) + 1, seqs)
        return page.seconds[inside], page.attention[inside]

    def _page(self, seqs: int, context: int, steps: int) -> Page | None:
        """The page that has the times of all these steps."""
        layers = self._layers
        if layers is None or seqs < 1:
            return None
        number = context // PAGE_TOKENS
        if context - number * PAGE_TOKENS + seqs * (steps - 1) >= PAGE_TOKENS:
            return None
        key = number * _MOST_SEQS + seqs
        page = self._pages.get(key)
        if page is not None:
            return page
        asked = self._asked.get(key, 0) + 1
        self._asked[key] = asked
        if asked < LEAST_ASKED:
            return None
        if len(self._pages) == MOST_PAGES:
            self._pages.clear()
            self._asked.clear()
        attention = layers.decode_steps(seqs, _TOKENS + number * PAGE_TOKENS)
        attention *= layers.decodes
        page = self._pages[key] = Page(attention)
        return page
