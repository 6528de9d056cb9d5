"""SGLang's scheduler: prompts first, admission by an estimate of what outputs will take, retraction when it was short.

SOURCE: sgl-project/sglang, python/sglang/srt/managers:
- scheduler.py (get_next_batch_to_run, update_running_batch): a step computes prompts alone while there are any to
  admit, and those that decode wait; with `mixed_chunk` they are in the step too. When a request found no room nobody
  is admitted before one has ended (batch_is_full)
- schedule_policy.py (PrefillAdder): a request is admitted while its prompt and output, of at most CLIP tokens, are less
  than the free and evictable tokens, less `ratio` times what the running ones may still produce. SchedulePolicy: by
  arrival, or those first of whose prompt most is cached (lpm), unless more than MOST_SORTED wait; of requests that
  share a prefix which is not cached, all but one go last
- scheduler_components/new_token_ratio_tracker.py: `ratio` falls with every decode step
- schedule_batch.py (retract_decode): when the next token of all does not fit, who has the fewest output tokens gives
  way, of these the longest prompt, and queues again behind the others
"""

from __future__ import annotations

from sim.engine.batch import Batch
from sim.engine.limits import EngineLimits
from sim.engine.members import Chunk
from sim.engine.queue import Requeued, Waiting
from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.lookup import Prefix

CLIP = 4096
"""Output tokens that the estimate counts of a request, at most (CLIP_MAX_NEW_TOKENS)."""
MOST_SORTED = 128
"""Requests that wait, beyond which they are taken by arrival (_determine_active_policy)."""
INIT_RATIO, LEAST_RATIO, DECAY_STEPS, RETRACT_STEPS = 0.7, 0.14, 600, 20
"""environ.py: SGLANG_INIT_NEW_TOKEN_RATIO, _MIN_NEW_TOKEN_RATIO_FACTOR, _NEW_TOKEN_RATIO_DECAY_STEPS and
SGLANG_RETRACT_DECODE_STEPS."""


class NewTokenRatio:
    """Share of what running requests may still produce that is kept free for them; falls by the decode step."""

    def __init__(self, conservativeness: float) -> None:
        self._first = min(INIT_RATIO * conservativeness, 1.0)
        self._least = self._first * LEAST_RATIO
        self._from, self._since = self._first, 0

    def at(self, steps: int) -> float:
        """After so many decode steps."""
        fall = (self._first - self._least) / DECAY_STEPS * max(0, steps - self._since)
        return max(self._from - fall, self._least)

    def reset(self, steps: int, estimate: float | None = None) -> None:
        """From now on `estimate`; the first value when the engine is idle."""
        self._from, self._since = self._first if estimate is None else min(1.0, estimate), steps


class PrefillFirstBatch(Batch):
    """Queue and batch of one replica under SGLang's scheduler.

    `EngineLimits`: mixed, prompts and decoding sequences share steps; conservativeness, of the estimate;
    longest_prefix_first, the order of waiting requests.
    """

    def __init__(
        self,
        cache: ReplicaCache,
        limits: EngineLimits,
        name: str,
        windows: tuple[int, ...] = (),
        *,
        prompts: tuple[int | None, ...] = (),
        lengths: bool = False,
        host_limit: float | None = None,
    ) -> None:
        super().__init__(cache, limits, name, windows, prompts=prompts, lengths=lengths, host_limit=host_limit)
        self.ratio = NewTokenRatio(limits.conservativeness)
        self._full = False
        """A request found no room, and none has ended since."""
        self._prompts_only = False
        self._decoded = False
        """The decoding sequences are in the step that was decided last."""
        self._last_s = 0.0
        """End of the last step with decoding sequences, s."""
        self._joined: list[Sequence] = []
        self._since: dict[int, float] = {}
        """When those that joined after it had their last token, s."""
        self._waits: list[float] = []

    def _new_queue(self) -> Waiting:
        return Requeued()

    @property
    def paused(self) -> bool:
        """The step computes prompts alone."""
        return self._prompts_only

    def taken_waits(self) -> list[float]:
        """Seconds that rows waited, since their last token, for steps with prompts alone; once."""
        waits, self._waits = self._waits, []
        return waits

    def schedule(self, now: float) -> tuple[list[Chunk], bool]:
        """Prompts if there are any, else the decoding sequences; both with `mixed`."""
        self._note(now)
        lost, mixed = len(self.preemptions), self.limits.mixed
        if mixed:
            self._take_step(now)
        chunks = [] if self.prefilling is None else self._continue_prefill(self.prefilling, now)
        held_up = self.prefilling is not None and not chunks
        if not held_up and lost == len(self.preemptions):
            self._admit(chunks, now)
        if not (mixed or chunks):
            self._take_step(now)
        while not chunks and not self.decoding.count and (self.waiting or self.loaded):
            self._admit(chunks, now)
            if not chunks and not self._take_back():
                break
        self._prompts_only = bool(chunks) and not mixed
        self._decoded = self.decoding.count > 0 and not self._prompts_only
        if self._decoded:
            self._tell_waits(now)
        elif not chunks:
            self.ratio.reset(self.decoding.steps_done)
        return chunks, lost == len(self.preemptions) and not held_up

    def decode(self, seq: Sequence) -> None:
        """The sequence has its first token, or its next after it gave way."""
        super().decode(seq)
        self._joined.append(seq)

    def finish(self, seq: Sequence) -> None:
        """The sequence has its last token."""
        super().finish(seq)
        self._full = False

    # ---- when rows had their last token

    def _note(self, now: float) -> None:
        if self._decoded:
            self._last_s = now
            self._since.clear()
        else:
            self._since.update((seq.index, now) for seq in self._joined)
        self._joined.clear()

    def _tell_waits(self, now: float) -> None:
        since = self._since
        waits = [now - at for at in since.values()] + [now - self._last_s] * (self.decoding.count - len(since))
        self._waits = [wait for wait in waits if wait > 0]

    # ---- memory

    def _take_step(self, now: float) -> None:
        """Take the blocks of the next decode step; when there is no room for them, sequences give way."""
        lost, decoding = len(self.preemptions), self.decoding
        while (blocks := decoding.blocks(1)) and not self.cache.reserve(blocks):
            self._preempt(self._victim(), now)
        if lost < len(self.preemptions) and decoding.count:
            rest = [seq for seq in self.running.values() if seq in decoding]
            made = sum([seq.generated + decoding.gained(seq) for seq in rest])
            most = sum([seq.output_tokens for seq in rest])
            # The step after a retraction does not lower the ratio.
            self.ratio.reset(decoding.steps_done + 1, (made + RETRACT_STEPS * len(rest)) / (most + 1))

    def _victim(self) -> Sequence:
        decoding = [seq for seq in reversed(self.running.values()) if seq in self.decoding]
        if len(decoding) > 1 or self.prefilling is None:
            return min(decoding, key=lambda seq: (seq.generated + self.decoding.gained(seq), -seq.input_tokens))
        return self.prefilling

    def _preempt(self, seq: Sequence, now: float) -> None:
        decoding = seq in self.decoding
        super()._preempt(seq, now)
        if decoding:
            seq.token_s = self._since.pop(seq.index, self._last_s)
        self._full = False

    def _continue_prefill(self, seq: Sequence, now: float) -> list[Chunk]:
        tokens = min(seq.known - seq.computed, self._budget())
        if self.cache.extend(seq, tokens):
            return [(seq, tokens)]
        return [] if self.decoding.count else super()._continue_prefill(seq, now)

    # ---- waiting sequences

    def _budget(self) -> int:
        return super()._budget() if self.limits.mixed else self.limits.max_num_batched_tokens

    def _admit(self, chunks: list[Chunk], now: float) -> None:
        if not self.running:
            self._full = False
        if self.limits.longest_prefix_first and not self._full and len(self.running) < self.limits.max_num_seqs:
            self._sort()
        super()._admit(chunks, now)

    def _look_up_next(self, budget: int, now: float) -> bool:
        return not self._full and super()._look_up_next(budget, now)

    def _fits(self, seq: Sequence, prefix: Prefix, budget: int) -> bool:
        cache = self.cache
        free = (cache.hbm.available - cache.newly_pinned(seq, prefix.found)) // cache.token_bytes
        needed = seq.known - prefix.tokens + prefix.behind + _left(seq) + cache.block_tokens
        alone = not (self.running or self.loading or self.loaded)  # it has all that the cache is
        self._full = not alone and needed >= free - self._kept_free()
        return not self._full and super()._fits(seq, prefix, budget)

    def _kept_free(self) -> float:
        """Tokens for what the admitted sequences may still produce, and for prompts that have not begun."""
        decoding, running, begun = self.decoding, 0, 0
        for seq in self.running.values():
            if seq in decoding:
                running += min(seq.output_tokens - seq.generated - decoding.gained(seq), CLIP)
            else:
                begun += _left(seq)
        for seq in (*self.loading.values(), *(seq for _, seq in self.loaded)):
            begun += seq.known - seq.computed + _left(seq)
        return running * self.ratio.at(decoding.steps_done) + begun

    def _sort(self) -> None:
        """Longest cached prefix first; a prefix that another one waits with, and that is not cached, last."""
        waiting = self.waiting
        if not 1 < len(waiting) <= MOST_SORTED:
            return
        cached = {seq.index: self.cache.cached_tokens(seq.keys) for seq in waiting}
        begun: set[int] = set()
        ranks: dict[int, tuple[bool, int, int]] = {}
        for seq in sorted(waiting, key=lambda seq: seq.queued):
            tokens = cached[seq.index]
            again = not tokens and bool(seq.keys) and seq.keys[0] in begun
            if not tokens:
                begun.update(seq.keys[:1])
            ranks[seq.index] = (again, -tokens, seq.queued)
        ordered = sorted(waiting, key=lambda seq: ranks[seq.index])
        waiting.clear()
        waiting.extend(ordered)


def _left(seq: Sequence) -> int:
    """Output tokens of a sequence that does not decode, as the estimate counts them."""
    return min(seq.output_tokens - seq.generated, CLIP)
