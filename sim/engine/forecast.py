"""How much memory the admitted sequences of a replica will take, step by step, if their outputs end when predicted.

Each decoding sequence grows by a token per step until it ends, so between two ends memory only grows, and its peaks are
the steps in which somebody ends (arXiv 2502.07115, the check of MC-SF). What the paper's rounds do not have:

prompts      that take several steps end their sequence later than if they took one, at most by as many steps as the
             tokens before them and their own take of the budget. As nobody knows when exactly, the sequence counts as
             growing from the next step on, and as staying until the latest end
loads        nobody knows how long one takes: the sequence counts until it decodes, as if it never ended
prefixes     cached blocks in use are shared: beside the growth of all, no more than the sum of what each uses and no
             more than is in use now. Not foreseen: of two prompts that part inside of a block of the trace, the longer
             may leave what it added to a block that the other still uses
copies       blocks that only a copy holds count as staying
plans        within a sequence, and drafts: a sequence counts with the most that it ever holds
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEVER = 1 << 60
"""The last step of a sequence that nobody knows when will end."""


class Held(NamedTuple):
    """A sequence as it is now: KV of `tokens` tokens in step 1 and one more in each step until step `grows`, gone after
    step `last`; steps count from 1, the next one.

    covered  bytes of it that lie in cached blocks
    fixed    it holds so many bytes, whatever its KV; -1: as many blocks as that takes
    """

    tokens: int
    grows: int
    last: int
    covered: int
    fixed: int = -1


class Forecast:
    """Sequences added one by one; then `peak`. All in bytes.

    pinned   cached blocks in use
    """

    def __init__(self, block_tokens: int, block_bytes: int, pinned: int) -> None:
        self._block_tokens = block_tokens
        self._block_bytes = block_bytes
        self._pinned = pinned
        self._rows: list[Held] = []
        self._covered = 0

    def add(self, held: Held) -> None:
        """A sequence that was admitted."""
        self._rows.append(held)
        self._covered += held.covered

    def peak(self, candidate: Held, newly_pinned: int) -> int:
        """The most that all hold at once, with `candidate`, which would take `newly_pinned` bytes of cached blocks
        into use."""
        loose = max(0, self._pinned - self._covered)
        rows = np.array([*self._rows, candidate], dtype=np.int64)
        tokens, grows, last, covered, fixed = (rows[:, i : i + 1] for i in range(5))
        ends = np.unique(np.append(rows[:, 2][rows[:, 2] < NEVER], rows[:, 1].max()))
        kv = tokens + np.minimum(ends, grows) - 1
        held = np.where(fixed < 0, -(-kv // self._block_tokens) * self._block_bytes, fixed)
        alive = last >= ends
        own = ((held - covered) * alive).sum(axis=0)
        shared = np.minimum((covered * alive).sum(axis=0) + loose, self._pinned + newly_pinned)
        return int((own + shared).max())
