"""The decoding sequences of one replica, as counts and sums: no step touches every sequence."""

from __future__ import annotations

import heapq
from collections.abc import Sequence as Listed
from math import inf

from sim.cost.stage import Attended
from sim.engine.growth import Growth
from sim.engine.sequence import Sequence


class DecodeGroup:
    """Sequences that each produce one token per step.

    All advance together, so which of them need a new block in a step depends only on (tokens mod block) at joining:
    a histogram of that residue, rotated by the step count, gives the blocks needed without looking at any sequence.
    `windows`: the sliding windows of the model's layers and limits of plans within a sequence, tokens. `prompts`:
    limits of the sums of prompts that such plans need, None for prompts as they are. `lengths`: `longest` is asked for.
    `growth`: counts the blocks instead where tokens of KV are not what they hold.
    """

    def __init__(
        self,
        block_tokens: int,
        windows: Listed[int] = (),
        *,
        prompts: Listed[int | None] = (),
        lengths: bool = False,
        growth: Growth | None = None,
    ) -> None:
        self.count = 0
        self.context = 0
        """Tokens in the cache over all sequences, before the next step's own tokens are added."""
        self._block = block_tokens
        self._done = 0
        """Decode steps of this replica so far."""
        self._residues = [0] * block_tokens
        self.growth = growth
        self._heap: list[tuple[int, int, Sequence]] = []
        self._members: set[int] = set()
        self._entries = 0
        self.windows = [WindowSum(window) for window in windows]
        self._prompts = list(prompts)
        self._prompt_sums = [0] * len(self._prompts)
        self._lengths: list[tuple[int, int, Sequence]] | None = [] if lengths else None
        """Decode steps less tokens, which stays as it is: a heap, the longest sequence first."""

    @property
    def windowed(self) -> tuple[Attended, ...]:
        """What the next step attends in layers of each window; after these the sums of prompts, which do not grow."""
        if not (self.windows or self._prompts):
            return ()
        grown = [Attended(w.tokens, w.growing) for w in self.windows]
        return (*grown, *[Attended(tokens, 0) for tokens in self._prompt_sums])

    @property
    def steps_done(self) -> int:
        """Decode steps of this replica so far."""
        return self._done

    @property
    def longest(self) -> int:
        """Tokens that the longest sequence attends in the next step; 0 if nobody asks."""
        heap = self._lengths
        if not heap or not self.count:
            return 0
        while self._has_left(heap[0]):
            heapq.heappop(heap)
        return self._done - heap[0][0]

    @property
    def rows(self) -> int:
        """Tokens that the next step runs."""
        return self.count

    def __contains__(self, seq: Sequence) -> bool:
        return seq.index in self._members

    def gained(self, seq: Sequence) -> int:
        """Tokens that a member has gained since it joined."""
        return self._done - seq.decode_from

    def held_tokens(self, seq: Sequence, steps: int) -> int:
        """Tokens of a member that have memory when the blocks of `steps` more steps are taken."""
        return seq.computed + self.gained(seq) + steps

    def join(self, seq: Sequence) -> None:
        """The sequence has sampled a token whose KV is not computed yet; from now on it gets one per step."""
        self._members.add(seq.index)
        self.count += 1
        self.context += seq.computed + 1
        seq.decode_from = self._done
        self._residues[(seq.computed - self._done) % self._block] += 1
        if self.growth is not None:
            self.growth.join(seq.index, seq.computed, seq.input_tokens, self._done)
        self._entries += 1
        finish = self._done + seq.output_tokens - seq.generated
        heapq.heappush(self._heap, (finish, self._entries, seq))
        if self._lengths is not None:
            heapq.heappush(self._lengths, (self._done - seq.computed - 1, self._entries, seq))
        for window in self.windows:
            window.join(seq.index, seq.computed + 1, self._done)
        if self._prompts:
            self._count_prompt(seq, 1)

    def leave(self, seq: Sequence) -> int:
        """The sequence stops (finished or preempted); the tokens that it gained since it joined."""
        self._members.discard(seq.index)
        gained = self._done - seq.decode_from
        self.count -= 1
        self.context -= seq.computed + gained + 1
        self._residues[(seq.computed - seq.decode_from) % self._block] -= 1
        if self.growth is not None:
            self.growth.leave(seq.index)
        for window in self.windows:
            window.leave(seq.index, seq.computed + gained + 1)
        if self._prompts:
            self._count_prompt(seq, -1)
        return gained

    def blocks(self, steps: int) -> int:
        """Blocks that the next `steps` steps (at most `steps_as_planned`) fill for the first time."""
        if self.growth is not None:
            return self.growth.blocks(steps, self._done)
        block, residues = self._block, self._residues
        first = -self._done % block  # a step needs a block for each sequence of its residue; the next has one less
        if steps == 1:
            return residues[first]
        cycles, rest = divmod(steps, block)
        last = first - rest + 1
        begun = sum(residues[last : first + 1]) if last >= 0 else sum(residues[: first + 1]) + sum(residues[last:])
        return cycles * self.count + begun

    def steps_within(self, blocks: int, most: int) -> int:
        """Steps, `most` at most, for which `blocks` free blocks are enough beside those that the first step has."""
        if self.growth is not None:
            return self.growth.steps_within(blocks, int(min(most, self.steps_as_planned())), self._done)
        if blocks >= self.count * -(-most // self._block):
            return most
        blocks += self.blocks(1)
        cycles = blocks // self.count
        left = blocks - cycles * self.count
        steps = cycles * self._block
        while True:
            left -= self._residues[-(self._done + steps) % self._block]
            if left < 0:
                return min(steps, most)
            steps += 1

    def steps_to_finish(self) -> int:
        """Steps until the next sequence has all its tokens."""
        heap, members = self._heap, self._members
        while True:
            finish, _, seq = heap[0]
            # Else it was preempted since (and may have joined again).
            if seq.index in members and finish == seq.decode_from + seq.output_tokens - seq.generated:
                return finish - self._done
            heapq.heappop(heap)

    def steps_as_planned(self) -> float:
        """Steps for which `windowed` and memory grow as they say; then a sequence fills a window, or reaches the next
        limit of its memory."""
        planned = min([window.steps_to_full(self._done) for window in self.windows]) if self.windows else inf
        return planned if self.growth is None else min(planned, self.growth.steps_as_planned(self._done))

    def advance(self, steps: int) -> list[Sequence]:
        """`steps` steps have run; the sequences that finished, with their counts brought up to date.

        At most `steps_as_planned`.
        """
        finished: list[Sequence] = []
        if not self.count:
            return finished
        done = self._done = self._done + steps
        for window in self.windows:
            window.advance(steps, done)
        if self.growth is not None:
            self.growth.advance(done)
        self.context += self.count * steps
        heap, members = self._heap, self._members
        while heap and heap[0][0] <= done:
            finish, _, seq = heapq.heappop(heap)
            if seq.index not in members or finish != seq.decode_from + seq.output_tokens - seq.generated:
                continue  # it was preempted since
            gained = self.leave(seq)
            seq.computed += gained
            seq.generated += gained
            finished.append(seq)
        return finished

    def _count_prompt(self, seq: Sequence, sign: int) -> None:
        tokens = seq.input_tokens
        for i, limit in enumerate(self._prompts):
            self._prompt_sums[i] += sign * (tokens if limit is None else min(tokens, limit))

    def _has_left(self, entry: tuple[int, int, Sequence]) -> bool:
        """True for an entry of `_lengths` whose sequence has stopped since (and may have joined again)."""
        rank, _, seq = entry
        return seq.index not in self._members or rank != seq.decode_from - seq.computed - 1


class WindowSum:
    """Tokens that the members attend in a layer with a sliding window: the sum of min(context, window).

    A member adds one per step until its context fills the window, at a step that is known when it joins: a heap of
    those steps keeps the sum, and no step looks at every member.
    """

    def __init__(self, window: int) -> None:
        self.tokens = 0
        self._window = window
        self._heap: list[tuple[int, int]] = []
        self._full_at: dict[int, int] = {}
        """Of each member that still grows: the step count at which its window is full."""

    @property
    def growing(self) -> int:
        """Members whose context is shorter than the window."""
        return len(self._full_at)

    def join(self, index: int, context: int, done: int) -> None:
        """A member attends `context` tokens in the next step, which follows `done` steps."""
        self.tokens += min(context, self._window)
        if context < self._window:
            self._full_at[index] = done + self._window - context
            heapq.heappush(self._heap, (self._full_at[index], index))

    def leave(self, index: int, context: int) -> None:
        """A member that would attend `context` tokens in the next step leaves."""
        self.tokens -= min(context, self._window)
        self._full_at.pop(index, None)

    def steps_to_full(self, done: int) -> float:
        """Steps until the next member's window is full; infinite if none grows."""
        while self._heap and self._full_at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] - done if self._heap else inf

    def advance(self, steps: int, done: int) -> None:
        """`steps` steps have run (at most `steps_to_full`), which makes `done` in all."""
        self.tokens += self.growing * steps
        while self._heap and self._heap[0][0] <= done:
            full_at, index = heapq.heappop(self._heap)
            if self._full_at.get(index) == full_at:
                del self._full_at[index]
