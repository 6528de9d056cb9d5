"""The decoding sequences of a replica that verifies drafted tokens: each gains one to k + 1 of them per step.

What a sequence gains in each of its steps is drawn when it joins (`sim.engine.speculative_draws`), so all of its steps
are known then: rows, context, blocks. They are added to a calendar of the replica's steps, from which strides and
single steps read the same whole numbers.

Memory as in vLLM v1 (vllm/v1/core/sched/scheduler.py; kv_cache_manager.py, allocate_slots): before a step a sequence
has slots for its last token, the drafted ones, and `ahead` more for what a drafter with KV of its own writes in the
same step. KV of wrong tokens is overwritten in the next step; blocks that were taken for it stay with the sequence.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from collections.abc import Sequence as Listed
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.cost.verify import VerifyLoad
from sim.engine.calendar import Calendar, Ints
from sim.engine.decoding import DecodeGroup
from sim.engine.sequence import Sequence
from sim.engine.speculative_draws import Acceptance

ROWS, ATTENDED, PAIRS, BLOCKS, KEPT, ACCEPTED, DRAFTED, WINDOWS = range(8)
"""Columns of the calendar: rows that the linear kernels run over; tokens that are attended, and pairs of them with a
row; blocks that are new; tokens gained; drafted tokens that were right; drafted tokens. Then tokens and pairs of each
window."""


class _Member(NamedTuple):
    entry: int
    start: int
    """The replica's decode steps when it joined."""
    gained: Ints
    """Tokens gained before each of its steps, and at the end: int64[steps + 1]."""
    held: Ints
    """Blocks held before its first step, and in each step: int64[steps + 1]."""
    attended: Ints
    """int64[steps]."""
    numbers: Ints
    """What it adds to the calendar: int64[columns, steps]."""


class SpeculativeGroup(DecodeGroup):
    """`windows`: sliding windows of the model's layers, then those that only the drafter has. `ahead`: slots beyond
    those of the tokens that are verified. `give_back`: takes blocks that a sequence held beyond what it has computed,
    when it leaves. `padded`: a draft of fewer tokens has the rows of a full one. `lengths`: the longest sequence
    matters."""

    def __init__(
        self,
        block_tokens: int,
        windows: Listed[int],
        acceptance: Acceptance,
        *,
        ahead: int,
        give_back: Callable[[int], None],
        padded: bool = False,
        lengths: bool = False,
    ) -> None:
        super().__init__(block_tokens)
        self._padded = padded
        self._acceptance = acceptance
        self._ahead = ahead
        self._give_back = give_back
        self._windows = list(windows)
        self._asks_longest = lengths
        self._calendar = Calendar(WINDOWS + 2 * len(self._windows))
        self._known: dict[int, _Member] = {}
        self.verified = 0
        """Verifying steps of sequences so far; then what these drafted, accepted and kept."""
        self.drafted = self.accepted = self.kept = 0

    @property
    def rows(self) -> int:
        """Tokens of the next step, drafted ones included."""
        return int(self._calendar.ahead(self._done, 1)[ROWS, 0]) if self.count else 0

    @property
    def longest(self) -> int:
        """Of no use here: see `load`."""
        return 0

    def load(self, steps: int) -> VerifyLoad:
        """The next `steps` steps (at most `steps_to_finish`)."""
        sums = self._calendar.ahead(self._done, steps)
        numbers = sums.astype(np.float64)
        windowed = [(numbers[WINDOWS + 2 * i], numbers[WINDOWS + 2 * i + 1]) for i in range(len(self._windows))]
        longest = self._longest_ahead(steps) if self._asks_longest else None
        return VerifyLoad(self.count, sums[ROWS].copy(), numbers[ATTENDED], numbers[PAIRS], windowed, longest)

    def _longest_ahead(self, steps: int) -> npt.NDArray[np.float64]:
        """Tokens that the longest sequence attends in each of the next steps: the one step that looks at everybody."""
        done, most = self._done, np.zeros(steps, dtype=np.int64)
        for member in self._known.values():
            step = done - member.start
            np.maximum(most, member.attended[step : step + steps], out=most)
        return most.astype(np.float64)

    # ---- members

    def gained(self, seq: Sequence) -> int:
        """Tokens that a member has gained since it joined."""
        member = self._known[seq.index]
        return int(member.gained[self._done - member.start])

    def held_tokens(self, seq: Sequence, steps: int) -> int:
        """Slots that a member has when the blocks of `steps` more steps are taken."""
        member = self._known[seq.index]
        return int(member.held[self._done - member.start + steps]) * self._block

    def join(self, seq: Sequence) -> None:
        """The sequence has sampled a token whose KV is not computed yet; from now on its drafts are verified."""
        drafted, accepted, kept = self._acceptance.steps(seq.index, seq.generated, seq.output_tokens)
        block, computed, done = self._block, seq.computed, self._done
        gained = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum(kept, out=gained[1:])
        rows = np.full_like(drafted, 1 + self._acceptance.tokens) if self._padded else drafted + 1
        attended = computed + gained[:-1] + rows
        held = np.empty(len(kept) + 1, dtype=np.int64)
        held[0] = -(-computed // block)
        held[1:] = np.maximum.accumulate(-(-(attended + self._ahead) // block))
        columns = [rows, attended, rows * attended, np.diff(held), kept, accepted, drafted]
        for window in self._windows:
            seen = np.minimum(attended, window)
            columns += [seen, rows * seen]
        self._entries += 1
        numbers = np.stack(columns)
        self._known[seq.index] = _Member(self._entries, done, gained, held, attended, numbers)
        self._members.add(seq.index)
        self._calendar.add(done, numbers)
        seq.decode_from = done
        heapq.heappush(self._heap, (done + len(kept), self._entries, seq))
        self.count += 1
        self.context = self._next_context()

    def leave(self, seq: Sequence) -> int:
        """The sequence stops (finished or preempted); the tokens that it gained since it joined."""
        member = self._known.pop(seq.index)
        self._members.discard(seq.index)
        step = self._done - member.start
        gained = int(member.gained[step])
        if step < len(member.attended):
            self._calendar.take(self._done, member.numbers[:, step:])
        spare = int(member.held[step]) + -(seq.computed + gained) // self._block
        if spare:
            self._give_back(spare)
        self.count -= 1
        self.context = self._next_context()
        return gained

    def _next_context(self) -> int:
        return int(self._calendar.ahead(self._done, 1)[ATTENDED, 0]) if self.count else 0

    # ---- steps

    def blocks(self, steps: int) -> int:
        """Blocks that the next `steps` steps take."""
        if not self.count:
            return 0
        taken = self._calendar.ahead(self._done, steps)[BLOCKS]
        return int(taken[0]) if steps == 1 else int(taken.sum())

    def steps_within(self, blocks: int, most: int) -> int:
        """Steps, `most` at most, for which `blocks` free blocks are enough beside those that the first step has."""
        taken = np.cumsum(self._calendar.ahead(self._done, most)[BLOCKS])
        return min(int(taken.searchsorted(blocks + taken[0], side="right")), most)

    def steps_to_finish(self) -> int:
        """Steps until the next sequence has all its tokens."""
        heap = self._heap
        while self._has_gone(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] - self._done

    def steps_as_planned(self) -> float:
        """No limit: the calendar knows windows and blocks of all steps."""
        return inf

    def advance(self, steps: int) -> list[Sequence]:
        """`steps` steps have run (at most `steps_to_finish`); the sequences that finished, with their counts."""
        finished: list[Sequence] = []
        if not self.count:
            return finished
        sums = self._calendar.ahead(self._done, steps).sum(axis=1)
        verified = self.count * steps
        self.verified += verified
        self.drafted += int(sums[DRAFTED])
        self.accepted += int(sums[ACCEPTED])
        self.kept += int(sums[KEPT])
        done = self._done = self._done + steps
        heap = self._heap
        while heap and heap[0][0] <= done:
            entry = heapq.heappop(heap)
            if self._has_gone(entry):
                continue
            seq = entry[2]
            gained = self.leave(seq)
            seq.computed += gained
            seq.generated += gained
            finished.append(seq)
        self.context = self._next_context()
        return finished

    def _has_gone(self, entry: tuple[int, int, Sequence]) -> bool:
        """True for an entry of a sequence that has left since (and may have joined again)."""
        member = self._known.get(entry[2].index)
        return member is None or member.entry != entry[1]
