"""Which sequences run: vLLM v1's scheduler over one replica's queue, batch and cache.

Each step has a token budget. Running sequences come first, then waiting ones in order of arrival, or of priority;
blocks are allocated as they fill, and when HBM is full the most recently admitted sequence, or the last by priority, is
preempted and recomputed later (vllm/v1/core/sched/scheduler.py; sim.engine.queue). A sequence whose prefix lies in a
lower tier waits for its load while others run (WAITING_FOR_REMOTE_KVS).
"""

from __future__ import annotations

import heapq

from sim.engine.members import Chunk, Members
from sim.engine.reception import Reception
from sim.engine.sequence import Sequence
from sim.hierarchy.lookup import Prefix
from sim.invariants import ensure


class Batch(Members):
    """Queue and batch of one replica, and the decision of each step."""

    def schedule(self, now: float) -> tuple[list[Chunk], bool]:
        """Decide the next step: its prefill chunks, and False if a preemption left something to decide after it.

        Blocks for the step are allocated; the decoding sequences are all in it.
        """
        preempted = len(self.preemptions)
        decoding = self.decoding
        while (blocks := decoding.blocks(1)) and not self.cache.reserve(blocks):
            self._preempt(self._victim(), now)
        chunks = [] if self.prefilling is None else self._continue_prefill(self.prefilling, now)
        settled = preempted == len(self.preemptions)
        if not chunks and self.prefilling is not None:
            return chunks, settled  # it stays as it is until KV that leaves has left
        if self.reception is not None and self.reception.wants and (settled or not (chunks or decoding.count)):
            self._receive(self.reception, chunks, now)
        if self.waiting or self.loaded:
            if settled or not (chunks or decoding.count):  # vLLM's next step admits when a preemption left none
                self._admit(chunks, now)
            while not chunks and not decoding.count and self._take_back():
                self._admit(chunks, now)
        return chunks, settled

    def _continue_prefill(self, seq: Sequence, now: float) -> list[Chunk]:
        """The next chunk of the sequence in the middle of its prefill, which is always the newest.

        With vLLM's order of preemption by arrival it gives way itself if there is no room; by priority others may.
        While KV of others leaves this replica it waits for that.
        """
        while self.prefilling is seq:
            tokens = min(seq.known - seq.computed, self._budget())
            if self.cache.extend(seq, tokens):
                return [(seq, tokens)]
            if self.leaving:
                return []
            victim = self._victim()
            if victim in self.decoding:
                self._give_back(victim)
            self._preempt(victim, now)
        return []

    # ---- sequences whose prompt another replica computed

    def _receive(self, reception: Reception, chunks: list[Chunk], now: float) -> None:
        """Take those whose KV is here into the batch, then give memory to those that ask for it.

        Preempted sequences, which wait in the queue, come before the latter.
        """
        landed, decoding, limits = reception.landed, self.decoding, self.limits
        rows = limits.max_num_batched_tokens - sum([tokens for _, tokens in chunks])
        while landed and len(self.running) < limits.max_num_seqs and decoding.count < rows:
            if self.cache.reserve(self.cache.next_blocks(landed[0])):
                self._join(reception, landed.popleft(), now)
            elif chunks or decoding.count or reception.coming or self.cache.mover.copying:
                return
            else:  # nothing else will give memory back: the last of them is computed again
                seq = landed.pop()
                self._join(reception, seq, now)
                self._preempt(seq, now)
                seq.token_s = seq.first_token_s
                reception.taken_back()
                self._late.pop()
        if len(self.running) < limits.max_num_seqs and not (self.waiting or self.loaded or landed):
            reception.place()

    def _join(self, reception: Reception, seq: Sequence, now: float) -> None:
        self.running[seq.index] = seq
        self.decode(seq)
        reception.join(seq, now)
        self._late.append(now - seq.first_token_s)

    # ---- waiting sequences

    def _admit(self, chunks: list[Chunk], now: float) -> None:
        """Take waiting sequences in order while the budget, the batch and the memory allow it."""
        budget = self._budget()
        for _, tokens in chunks:
            budget -= tokens
        while budget > 0 and len(self.running) < self.limits.max_num_seqs:
            if not self.loaded:
                if not self._look_up_next(budget, now):
                    return
                continue  # it is ready now, or it loads and the next one may go ahead
            seq = self.loaded[0][1]
            tokens = self._chunk(seq, seq.known - seq.computed, budget)
            if not tokens or not self._starts(seq) or not self.cache.extend(seq, tokens):
                return
            heapq.heappop(self.loaded)
            self.running[seq.index] = seq
            chunks.append((seq, tokens))
            budget -= tokens

    def _look_up_next(self, budget: int, now: float) -> bool:
        """Find and pin the cached prefix of the head of the queue; False if there is none or memory is too short.

        Without a load, nothing is pinned unless the first chunk (of at most `budget` tokens) fits too.
        """
        place = self._next_waiting()
        if place is None:
            return False
        seq, cache = self.waiting[place], self.cache
        host_bytes = 0.0 if cache.memory is None else cache.host_bytes(seq)
        if not self.host.fits(host_bytes):
            return False
        prefix = cache.lookup(seq)
        if not self._fits(seq, prefix, budget) or not cache.admit(seq, prefix):
            return False
        del self.waiting[place]
        self._admitted(seq)
        if self._queue is not None:
            self._queue.went(seq)
        if self.left is not None:
            self.left(seq)
        self.host.take(seq.index, host_bytes)
        seq.last_level = 0
        if seq.loss is None:
            seq.admit_s = now
        else:
            seq.loss.admit_s = now
        if seq.pending and not cache.layerwise:
            self.loading[seq.index] = seq
        else:
            self.ready(seq, now)
        return True

    def _fits(self, seq: Sequence, prefix: Prefix, budget: int) -> bool:
        """True if the first chunk of a waiting sequence, with this prefix, has room, or all of its prompt with
        `reserve_full_isl`; without that, what must be loaded first waits for its room later."""
        cache, limits = self.cache, self.limits
        had, chunk, kept = prefix.tokens, seq.known - prefix.tokens, 0
        if limits.reserve_full_isl:
            had, chunk = had - prefix.behind, chunk + prefix.behind
            if prefix.behind:  # it holds its memory for as long as the load takes, and gives way to nobody
                kept = self._promised_prompts()
        elif prefix.behind:
            return True
        else:
            chunk = min(chunk, budget)
        if limits.watermark and self.running:
            kept += limits.watermark
        need = cache.first_bytes(seq, had, chunk) + kept
        room = cache.hbm.capacity - cache.hbm.pinned - cache.hbm.reserved
        most = (seq.known + cache.hash_tokens) * cache.token_bytes  # that its use of them keeps from being evicted
        return need <= room - most or need <= room - cache.newly_pinned(seq, prefix.found)

    def _starts(self, seq: Sequence) -> bool:
        """True if a sequence that holds its prefix may have its first chunk, if there is memory for that."""
        limits, cache = self.limits, self.cache
        kept = limits.watermark if self.running else 0
        if not (limits.reserve_full_isl or kept):
            return True
        left = seq.known - seq.computed
        chunk = left if limits.reserve_full_isl else 0
        return cache.first_bytes(seq, seq.computed, chunk) + kept <= cache.hbm.available

    def _promised_prompts(self) -> int:
        """Bytes of HBM that prompts need to be complete whose sequences hold a part of it."""
        begun = [*self.loading.values(), *(seq for _, seq in self.loaded)]
        if self.prefilling is not None:
            begun.append(self.prefilling)
        return sum([self.cache.first_bytes(seq, seq.computed, seq.known - seq.computed) for seq in begun])

    def _admitted(self, seq: Sequence) -> None:
        """The sequence was looked up, and holds what was found."""

    def _chunk(self, seq: Sequence, left: int, budget: int) -> int:
        """Tokens of the `left` ones of its prompt that a sequence computes first, of at most `budget`; 0: it waits."""
        return min(left, budget)

    def _next_waiting(self) -> int | None:
        """Place in the queue of the first sequence that need not wait for a fetch of its own."""
        for place, seq in enumerate(self.waiting):
            if not seq.fetching:
                return place
        return None

    def _take_back(self) -> bool:
        """Nothing can run and no copy is under way: free what the last ready sequence holds. False if idle.

        Sequences that hold a loaded prefix without running could otherwise block each other for ever.
        """
        if self.cache.mover.copying or not (self.waiting or self.loaded):
            return False
        if self.leaving or (self.reception is not None and self.reception.coming):
            return False  # memory comes back, or a sequence that runs
        if any(seq.fetching for seq in self.waiting):
            return False
        ensure(len(self.loaded) > 1, f"{self._name} is stuck: nothing runs and nothing can be admitted")
        last = max(self.loaded, key=lambda entry: entry[0])
        self.loaded.remove(last)
        heapq.heapify(self.loaded)
        self._forget(last[1])
        return True
