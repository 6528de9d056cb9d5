"""Which sequences run: vLLM v1's scheduler over one replica's queue, batch and cache.

Each step has a token budget. Running sequences come first, then waiting ones in order of arrival, or of priority;
blocks are allocated as they fill, and when HBM is full the most recently admitted sequence, or the last by priority, is
preempted and recomputed later (vllm/v1/core/sched/scheduler.py; sim.engine.queue). A sequence whose prefix lies in a
lower tier waits for its load while others run (WAITING_FOR_REMOTE_KVS).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from sim.engine.decoding import DecodeGroup
from sim.engine.footprint import HostMemory
from sim.engine.growth import Growth
from sim.engine.queue import QUEUES, Scheduling, Waiting
from sim.engine.reception import Reception
from sim.engine.sequence import Preemption, Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.lookup import Prefix
from sim.hierarchy.queued import QueueIndex
from sim.invariants import ensure

Chunk = tuple[Sequence, int]
"""A sequence and the tokens of its prompt that run in the next step."""


@dataclass(frozen=True)
class EngineLimits:
    """Limits of the scheduler.

    whole_prompts  static batches run prompts whole, whatever `max_num_batched_tokens`
    chunked        prompts that do not fit a step run in chunks
    no_evict       a request is admitted only if all that it will ever need fits (sim.engine.inflight)
    mixed, conservativeness, longest_prefix_first: see sim.engine.prefill_first
    reserve_full_isl  a request starts only if there is room for its whole prompt, not just for its first chunk
    watermark      bytes of HBM that are kept free when a request starts beside others
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    scheduling: Scheduling = "fcfs"
    whole_prompts: bool = False
    chunked: bool = True
    no_evict: bool = False
    mixed: bool = True
    conservativeness: float = 1.0
    longest_prefix_first: bool = False
    reserve_full_isl: bool = False
    watermark: int = 0


class Batch:
    """Queue and batch of one replica.

    waiting      not looked up yet, in order of arrival (preempted sequences in front), or of priority
    loading      prefix on its way to HBM
    loaded       ready to start, ahead of everything in `waiting`; a heap by place in the queue
    running      in order of admission; decoding sequences, and at most one (the newest) in the middle of its prefill
    leaving      complete prompts whose KV has not left for the replica that decodes them
    reception    who comes from another replica to decode here; None: nobody does

    windows, prompts: see DecodeGroup. lengths: the longest decoding sequence matters.
    host_limit: host memory for KV that plans keep there, bytes; None: nobody says.
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
        self.cache = cache
        self.host = HostMemory(host_limit)
        self.limits = limits
        self.waiting = self._new_queue()
        self.loading: dict[int, Sequence] = {}
        self.loaded: list[tuple[int, Sequence]] = []
        self.running: dict[int, Sequence] = {}
        self.leaving: dict[int, Sequence] = {}
        self.reception: Reception | None = None
        memory = cache.memory
        growth = None if memory is None else Growth(memory.curve, memory.block_units)
        self.decoding = DecodeGroup(cache.block_tokens, windows, prompts=prompts, lengths=lengths, growth=growth)
        self.prefilling: Sequence | None = None
        self.preemptions: list[Preemption] = []
        """Every preemption, in order of time."""
        self.left: Callable[[Sequence], None] | None = None
        """Told of each sequence that has left `waiting`."""
        self._queue: QueueIndex | None = None
        """Who waits for which blocks, once an eviction policy asks."""
        self._late: list[float] = []
        """Seconds that those who came from another replica had waited for their second token, till they are told."""
        self._name = name
        if cache.queue is not None:
            cache.queue.watch(self._queued, self._keep)

    def _new_queue(self) -> Waiting:
        """The requests that wait, in their order."""
        return QUEUES[self.limits.scheduling]()

    @property
    def padding(self) -> int:
        """Decoding rows whose sequence has ended, and that only keep others company (`sim.engine.static`)."""
        return 0

    @property
    def queue_length(self) -> int:
        """Requests that arrived and are not running."""
        coming = 0 if self.reception is None else len(self.reception)
        return len(self.waiting) + len(self.loading) + len(self.loaded) + coming

    @property
    def wanting(self) -> bool:
        """Somebody waits for the next decision."""
        if self.waiting or self.loaded:
            return True
        return self.reception is not None and self.reception.wants

    @property
    def awaits_others(self) -> bool:
        """KV of a computed prompt is on its way from another replica, or to one that leaves memory here which somebody
        waits for."""
        if self.leaving and (self.waiting or self.prefilling is not None):
            return True
        return self.reception is not None and bool(self.reception.due)

    @property
    def queue_matters(self) -> bool:
        """Who waits has a say in what is evicted."""
        return self._queue is not None

    @property
    def paused(self) -> bool:
        """The decoding sequences are not in the step that was decided last."""
        return False

    def _budget(self) -> int:
        """Tokens of prompts that a step has room for."""
        return self.limits.max_num_batched_tokens - self.decoding.rows

    def taken_waits(self) -> list[float]:
        """Seconds that rows had waited for their second token when they began to decode, told once: those of static
        batches, and those that came from another replica."""
        late = self._late
        if late:
            self._late = []
        return late

    def enqueue(self, seq: Sequence) -> None:
        """A new request comes to the queue."""
        self.waiting.arrive(seq)
        if self._queue is not None:
            self._queue.came(seq)

    def changed(self) -> None:
        """Something happened that may change whom to admit (`sim.engine.chosen`)."""

    def goes_first(self, seq: Sequence) -> bool:
        """True if a request that has just arrived may be admitted before all others."""
        return self.waiting[0] is seq

    def ready(self, seq: Sequence, now: float) -> None:
        """The cached prefix of the sequence is in HBM (or, layer-wise, on its way): it may start with the next step."""
        self.loading.pop(seq.index, None)
        if seq.loss is None:
            seq.load_done_s, seq.load_level = now, seq.last_level
        else:
            seq.loss.load_done_s, seq.loss.load_level = now, seq.last_level
        heapq.heappush(self.loaded, (seq.queued, seq))

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

    def decode(self, seq: Sequence) -> None:
        """The sequence has its first token, or its next after a preemption, and decodes from now on."""
        self.cache.settle(seq)
        self.decoding.join(seq)

    def finish(self, seq: Sequence) -> None:
        """The sequence has its last token, or its first one if another replica decodes it."""
        del self.running[seq.index]
        if seq.leaves:
            self.leaving[seq.index] = seq
        else:
            self._release(seq)

    def let_go(self, index: int) -> None:
        """The KV of a complete prompt has left."""
        self._release(self.leaving.pop(index))

    def _release(self, seq: Sequence) -> None:
        self.cache.release(seq)
        self.host.give_back(seq.index)

    def check(self, booked_steps: int, chunks: list[Chunk]) -> None:
        """Recount what sequences hold, given the steps and chunks whose blocks are allocated already."""
        ensure(len(self.running) <= self.limits.max_num_seqs, f"{self._name}: batch too large")
        begun = {seq.index: tokens for seq, tokens in chunks}
        held = 0
        for seq in self._holders():
            tokens = seq.computed + begun.get(seq.index, 0)
            if seq in self.decoding:
                tokens = self.decoding.held_tokens(seq, booked_steps)
            held += self.cache.held_bytes(seq, tokens)
        ensure(held == self.cache.hbm.reserved, f"{self._name}: reserved bytes do not add up")

    def _holders(self) -> list[Sequence]:
        """Sequences that hold memory."""
        here = [*self.running.values(), *(seq for _, seq in self.loaded), *self.leaving.values()]
        return here if self.reception is None else [*here, *self.reception.holders]

    # ---- running sequences

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

    def _victim(self) -> Sequence:
        """Who gives way."""
        return self.waiting.victim(self.running)

    def _give_back(self, seq: Sequence) -> None:
        """The blocks that were reserved for the next step of a decoding sequence, if that needed any."""
        more, tokens = (self.decoding.held_tokens(seq, steps) for steps in (1, 0))
        self.cache.hbm.release(self.cache.held_bytes(seq, more) - self.cache.held_bytes(seq, tokens))

    def _preempt(self, seq: Sequence, now: float) -> None:
        """Take everything from the sequence; it goes back to the queue to be recomputed."""
        del self.running[seq.index]
        if seq is self.prefilling:
            self.prefilling = None
            seq.reached = max(seq.reached, seq.computed)
        else:
            gained = self.decoding.leave(seq)
            seq.computed += gained
            seq.generated += gained
            seq.token_s = now
            seq.reached = seq.input_tokens + seq.generated
        self._forget(seq)
        seq.known = seq.input_tokens + seq.generated
        seq.preemptions += 1
        if seq.loss is not None:
            seq.loss.end_s = now
        seq.loss = Preemption(seq.index, seq.replica, now)
        self.preemptions.append(seq.loss)

    def _forget(self, seq: Sequence) -> None:
        self._release(seq)
        seq.computed = seq.published = 0
        self.waiting.put_back(seq)
        if self._queue is not None:
            self._queue.came(seq)

    def _queued(self) -> Waiting:
        return self.waiting

    def _keep(self, queue: QueueIndex) -> None:
        self._queue = queue

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
