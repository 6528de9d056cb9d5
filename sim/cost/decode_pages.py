"""Decode attention by attended tokens, remembered: the strides of short requests run over the same few times again."""

from __future__ import annotations

import numpy as np

from sim.cost.layer import Floats, LayerCost

PAGE_TOKENS = 1 << 14
"""Attended tokens of a page: its times take 128 KiB."""
LEAST_ASKED = 16
"""Strides within a page before it is made: that takes as long as so many of them."""
MOST_PAGES = 256
"""Pages that are kept; then all are let go."""
_TOKENS = np.arange(PAGE_TOKENS, dtype=np.float64)


class DecodePages:
    """Attention of all `layers`, which are of one kind and attend everything; None: nothing is remembered.

    A page has the times of one number of sequences for each whole number of attended tokens, by the operations of
    `LayerCost.decode_steps` one by one, so what is read from it has the same bits as what is computed anew.
    """

    def __init__(self, layers: LayerCost | None) -> None:
        self._layers = layers
        self._pages: dict[tuple[int, int], Floats] = {}
        self._asked: dict[tuple[int, int], int] = {}

    def of(self, seqs: float, context: float, steps: int) -> Floats | None:
        """Times of `steps` steps from `context` attended tokens on, `seqs` more each: float64[steps], not to be
        changed. None if they are not remembered."""
        count, attended = int(seqs), int(context)
        if self._layers is None or count != seqs or attended != context or count < 1:
            return None
        number = attended // PAGE_TOKENS
        first = attended - number * PAGE_TOKENS
        last = first + count * (steps - 1)
        if last >= PAGE_TOKENS:
            return None
        page = self._pages.get((count, number))
        if page is None:
            asked = self._asked.get((count, number), 0) + 1
            self._asked[count, number] = asked
            if asked < LEAST_ASKED:
                return None
            page = self._make(self._layers, count, number)
        return page[first : last + 1 : count]

    def _make(self, layers: LayerCost, seqs: int, number: int) -> Floats:
        if len(self._pages) == MOST_PAGES:
            self._pages.clear()
            self._asked.clear()
        page = layers.decode_steps(seqs, _TOKENS + number * PAGE_TOKENS)
        page *= layers.decodes
        page.flags.writeable = False
        self._pages[seqs, number] = page
        return page
