"""The sequences of one replica: who waits, loads, runs and leaves, and what they hold."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from sim.engine.decoding import DecodeGroup
from sim.engine.footprint import HostMemory
from sim.engine.growth import Growth
from sim.engine.limits import EngineLimits
from sim.engine.queue import QUEUES, Waiting
from sim.engine.reception import Reception
from sim.engine.sequence import Preemption, Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.queued import QueueIndex
from sim.invariants import ensure

Chunk = tuple[Sequence, int]
"""A sequence and the tokens of its prompt that run in the next step."""


class Members:
    """Queue and batch of one replica, without the scheduler (`sim.engine.batch`).

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
    def awaits_others(self) -> bool:
        """KV of a computed prompt is on its way from another replica, or to one that leaves memory here which somebody
        waits for."""
        if self.leaving and (self.waiting or self.prefilling is not None):
            return True
        return self.reception is not None and bool(self.reception.due)

    @property
    def wanting(self) -> bool:
        """Somebody waits for the next decision."""
        if self.waiting or self.loaded:
            return True
        return self.reception is not None and self.reception.wants

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

    # ---- who gives way

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
