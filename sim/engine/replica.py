"""One serving replica: continuous batching with chunked prefill, as vLLM v1 schedules it.

Each step has a token budget. Running sequences come first, then waiting ones in order of arrival; blocks are allocated
as they fill, and when HBM is full the most recently admitted sequence is preempted and recomputed later
(vllm/v1/core/sched/scheduler.py). Decoding sequences advance together, so they are kept as counts and sums; steps with
nothing to decide are advanced in one stride that any outside event cuts at the end of the step in progress.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim.clock import STEP_LAST, Clock
from sim.cost.step import MAX_STRIDE, Floats, StepCost
from sim.engine.decoding import DecodeGroup
from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.invariants import ensure
from sim.recorder import Recorder


@dataclass(frozen=True)
class EngineLimits:
    """Limits of the scheduler."""

    max_num_seqs: int
    max_num_batched_tokens: int
    stride: bool = True
    """False advances one step at a time; results are the same, only slower (kept for the test that proves it)."""


@dataclass
class Stride:
    """A planned run of equal steps: the first one is in progress, the rest is only a plan."""

    start: float
    """When the first step starts; later than planned when it waits for evicted blocks to be copied away."""
    stall: float
    ends: Floats
    """End of each step, s."""
    decode_seqs: int
    context: int
    chunks: list[tuple[Sequence, int]]
    """Prefill chunks (sequence, tokens); only strides of one step have any."""
    linear: float
    attention: Floats
    launch: float


@dataclass
class ReplicaTimes:
    """Where a replica's time went, in seconds."""

    compute_s: float = 0.0
    load_wait_s: float = 0.0
    store_wait_s: float = 0.0
    idle_s: float = 0.0


class Replica:
    """One engine with its queue, its batch and its cache."""

    def __init__(
        self,
        index: int,
        clock: Clock,
        cost: StepCost,
        cache: ReplicaCache,
        limits: EngineLimits,
        recorder: Recorder,
        finished: Callable[[Sequence], None],
    ) -> None:
        self.index = index
        self.clock = clock
        self.cost = cost
        self.cache = cache
        self.limits = limits
        self.recorder = recorder
        self.times = ReplicaTimes()
        self.waiting: deque[Sequence] = deque()
        self.loading: dict[int, Sequence] = {}
        self.loaded: list[tuple[int, Sequence]] = []
        self.running: dict[int, Sequence] = {}
        self.decoding = DecodeGroup(cache.block_tokens)
        self.prefilling: Sequence | None = None
        self.steps = 0
        self.extrapolated_steps = 0
        self.preemptions = 0
        self.stride: Stride | None = None
        self._finished = finished
        self._plan_number = 0
        self._last_end = 0.0
        self._token_end = 0.0
        self._queued = 0
        self._starting = False
        cache.woken = self._wake
        cache.loaded = self._on_loaded

    # ---- events from outside

    def enqueue(self, seq: Sequence) -> None:
        """A request arrives."""
        seq.replica = self.index
        seq.queued = self._queued
        self._queued += 1
        blocked = bool(self.waiting)
        self.waiting.append(seq)
        if not blocked:
            self._wake()

    @property
    def queue_length(self) -> int:
        """Requests that arrived and are not running."""
        return len(self.waiting) + len(self.loading) + len(self.loaded)

    def unbooked_bytes(self, now: float) -> int:
        """Bytes of blocks that steps of the stride in progress have taken and that are booked when it ends."""
        if self.stride is None or not self.stride.decode_seqs:
            return 0
        begun = int(np.searchsorted(self.stride.ends, now, side="right")) + 1
        steps = min(begun, len(self.stride.ends))
        return (self.decoding.blocks(steps) - self.decoding.blocks(1)) * self.cache.block_bytes

    def check(self) -> None:
        """Recount what this replica's sequences hold. Raises InvariantError."""
        ensure(len(self.running) <= self.limits.max_num_seqs, f"replica {self.index}: batch too large")
        begun = {} if self.stride is None else {seq.index: tokens for seq, tokens in self.stride.chunks}
        decoding = self.stride is not None and self.stride.decode_seqs > 0
        held = 0
        for seq in (*self.running.values(), *(seq for _, seq in self.loaded)):
            tokens = seq.computed + begun.get(seq.index, 0)
            if seq in self.decoding:
                tokens += self.decoding.gained(seq) + decoding
            held += self.cache.blocks_of(tokens) * self.cache.block_bytes - seq.covered
        ensure(held == self.cache.hbm.reserved, f"replica {self.index}: reserved bytes do not add up")

    def _on_loaded(self, seq: Sequence) -> None:
        del self.loading[seq.index]
        self._on_ready(seq, self.clock.now)

    def _on_ready(self, seq: Sequence, now: float) -> None:
        """Its cached prefix is in HBM: it may start with the next step."""
        if not seq.preemptions:
            seq.load_done_s = now
        heapq.heappush(self.loaded, (seq.queued, seq))

    def _wake(self) -> None:
        """Something changed: start if idle, or cut the stride at the end of the step in progress."""
        if not (self.waiting or self.loaded):
            return
        now = self.clock.now
        if self.stride is None:
            if not self._starting:
                self._starting = True
                self.clock.at(now, self._start, STEP_LAST)
        elif len(self.stride.ends) > 1:
            ends = self.stride.ends
            steps = int(np.searchsorted(ends, now, side="left")) + 1
            if steps < len(ends):
                self.stride.ends = ends[:steps]
                self._schedule_end()

    def _start(self) -> None:
        self._starting = False
        if self.stride is not None:
            return
        now = self.clock.now
        idle = now - self._last_end
        if self.loading or self.loaded:
            self.times.load_wait_s += idle
        else:
            self.times.idle_s += idle
        self._last_end = now
        self._next(now)

    # ---- one round: plan, wait, commit

    def _next(self, now: float) -> None:
        """Decide the next step or stride at time `now`."""
        preempted = self.preemptions
        self._allocate_decode(now)
        chunks = self._schedule_running(now)
        settled = preempted == self.preemptions
        if settled:
            self._admit(chunks, now)
        if not chunks and not self.decoding.count:
            self._unblock(now)
            return
        self.stride = self._plan(chunks, now, settled)
        self._schedule_end()

    def _schedule_end(self) -> None:
        assert self.stride is not None
        self._plan_number += 1
        number = self._plan_number
        self.clock.at(float(self.stride.ends[-1]), lambda: self._end(number), STEP_LAST)

    def _end(self, number: int) -> None:
        if number != self._plan_number:
            return  # the stride was cut
        stride = self.stride
        assert stride is not None
        self.stride = None
        now = float(stride.ends[-1])
        self._commit(stride, now)
        self._last_end = now
        self._next(now)

    # ---- scheduling

    def _allocate_decode(self, now: float) -> None:
        """Blocks for the next token of every decoding sequence, preempting the newest sequences if need be."""
        while self.decoding.count and not self.cache.reserve(self.decoding.blocks(1), now):
            self._preempt(next(reversed(self.running.values())))

    def _schedule_running(self, now: float) -> list[tuple[Sequence, int]]:
        """The chunk of the sequence whose prefill is under way (always the newest; at most one)."""
        seq = self.prefilling
        if seq is None:
            return []
        tokens = min(seq.known - seq.computed, self.limits.max_num_batched_tokens - self.decoding.count)
        if not self.cache.extend(seq, tokens, now):
            self._preempt(seq)
            return []
        return [(seq, tokens)]

    def _admit(self, chunks: list[tuple[Sequence, int]], now: float) -> None:
        """Take waiting sequences in order while the budget, the batch and the memory allow it."""
        budget = self.limits.max_num_batched_tokens - self.decoding.count - sum(tokens for _, tokens in chunks)
        while budget > 0 and len(self.running) < self.limits.max_num_seqs:
            if self.loaded:
                seq = self.loaded[0][1]
            elif self.waiting:
                seq = self.waiting[0]
                if not self._look_up(seq, now):
                    return
                self.waiting.popleft()
                if seq.pending:
                    self.loading[seq.index] = seq
                    continue
                self._on_ready(seq, now)
            else:
                return
            tokens = min(seq.known - seq.computed, budget)
            if not self.cache.extend(seq, tokens, now):
                return
            heapq.heappop(self.loaded)
            self.running[seq.index] = seq
            chunks.append((seq, tokens))
            budget -= tokens

    def _look_up(self, seq: Sequence, now: float) -> bool:
        """Find and pin the cached prefix of the head of the queue; False if memory is too short to go on.

        Pinned only when the first chunk fits too, since a sequence that holds blocks without running starves others.
        """
        cache = self.cache
        found = cache.lookup(seq)
        if not any(f.level for f in found):
            hit = sum(f.tokens for f in found)
            chunk = min(seq.known - hit, self.limits.max_num_batched_tokens - self.decoding.count)
            need = cache.blocks_of(hit + chunk) - cache.blocks_of(hit)
            unpinned = sum(f.block.size for f in found if not f.block.pins)
            if need * cache.block_bytes > cache.hbm.available - unpinned:
                return False
        if not cache.admit(seq, found, now):
            return False
        if not seq.preemptions:
            seq.admit_s = now
        return True

    def _preempt(self, seq: Sequence) -> None:
        """Give up the newest sequence: its blocks go back, and it waits at the head of the queue to be recomputed."""
        del self.running[seq.index]
        if seq is self.prefilling:
            self.prefilling = None
        else:
            done = self.decoding.leave(seq)
            seq.computed += done
            seq.generated += done
            seq.token_s = now
        self.cache.release(seq)
        seq.computed = 0
        seq.published = 0
        seq.known = seq.input_tokens + seq.generated
        seq.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(seq)

    def _unblock(self, now: float) -> None:
        """Nothing can run. Wait for an event, or take memory back from sequences that hold blocks but cannot start."""
        if self.cache.copying or not (self.waiting or self.loaded):
            return
        ensure(len(self.loaded) > 1 or not self.loaded, f"replica {self.index} is stuck: no memory for one sequence")
        ensure(bool(self.loaded), f"replica {self.index} is stuck: nothing runs and nothing can be admitted")
        last = max(self.loaded)
        self.loaded.remove(last)
        heapq.heapify(self.loaded)
        seq = last[1]
        self.cache.release(seq)
        seq.computed = seq.published = 0
        self.waiting.appendleft(seq)
        self._next(now)

    # ---- plan and commit

    def _plan(self, chunks: list[tuple[Sequence, int]], now: float, settled: bool) -> Stride:
        cost, group = self.cost, self.decoding
        start = max(now, self.cache.stall_until)
        seqs, context = group.count, group.context
        if not chunks:
            steps = self._stride_length() if settled else 1
            linear = cost.linear(seqs, seqs)
            attention = cost.decode_stride(seqs, context, steps)
            times = attention + (linear + cost.host_time_s)
            times[0] += start
            return Stride(start, start - now, np.add.accumulate(times), seqs, context, chunks, linear, attention, 0.0)
        tokens = seqs + sum(n for _, n in chunks)
        rows = seqs + sum(seq.computed + n == seq.known for seq, n in chunks)
        linear = cost.linear(tokens, rows)
        attended = sum(cost.prefill(n, seq.computed) for seq, n in chunks)
        if seqs:
            attended += cost.decode(seqs, context)
        launch = max(0.0, cost.launch_floor_s - linear - attended)
        end = start + (linear + attended + launch + cost.host_time_s)
        return Stride(start, start - now, np.array([end]), seqs, context, chunks, linear, np.array([attended]), launch)

    def _stride_length(self) -> int:
        """Steps until a sequence finishes or memory must be taken from others."""
        if not self.limits.stride:
            return 1
        group, cache = self.decoding, self.cache
        # An eviction may start a copy that the step must wait for, or let the head of the queue in.
        stop = cache.evicting_copies or self.waiting
        free = cache.free_blocks if stop else cache.available_blocks
        return max(1, min(group.steps_to_finish(), MAX_STRIDE, group.steps_within(free)))

    def _commit(self, stride: Stride, now: float) -> None:
        steps, group, recorder = len(stride.ends), self.decoding, self.recorder
        seqs = stride.decode_seqs
        if seqs:
            if steps > 1:
                reserved = self.cache.reserve(group.blocks(steps) - group.blocks(1), now)
                ensure(reserved, f"replica {self.index}: a stride outgrew its memory")
            recorder.gap(float(stride.ends[0]) - self._token_end, seqs)
            if steps > 1:
                recorder.gaps(np.diff(stride.ends), seqs)
        attention = float(stride.attention[:steps].sum())
        self._record(stride, steps, now, attention)
        self._token_end = now
        for seq in group.advance(steps):
            self._finish(seq, now)
        if stride.chunks:
            self._finish_chunks(stride, now)

    def _finish_chunks(self, stride: Stride, now: float) -> None:
        """Prefill chunks have run: store what they filled, and let completed prompts decode."""
        filled = []
        self.prefilling = None
        for seq, tokens in stride.chunks:
            if seq.chunk_s != seq.chunk_s:  # NaN: its first chunk
                seq.chunk_s = stride.start - stride.stall
            seq.computed += tokens
            seq.prefilled += tokens
            filled += seq.filled
            seq.filled = []
            if seq.computed < seq.known:
                self.prefilling = seq
                continue
            if seq.generated:
                self.recorder.gap(now - seq.token_s, 1)
                seq.resumed += 1
            else:
                seq.first_token_s = now
            seq.generated += 1
            if seq.generated == seq.output_tokens:
                self._finish(seq, now)
            else:
                self.decoding.join(seq)
        if filled:
            self.cache.filled(filled, now)

    def _finish(self, seq: Sequence, now: float) -> None:
        del self.running[seq.index]
        seq.finish_s = now
        seq.status = "finished"
        self.cache.release(seq)
        self._finished(seq)

    def _record(self, stride: Stride, steps: int, now: float, attention: float) -> None:
        longest = max((seq.computed + n for seq, n in stride.chunks), default=0)
        if self.cost.extrapolated(stride.decode_seqs, stride.context, longest):
            self.extrapolated_steps += steps
        self.recorder.steps.append(
            self.index,
            self.steps,
            steps,
            stride.start,
            now,
            stride.decode_seqs,
            len(stride.chunks),
            sum(n for _, n in stride.chunks),
            stride.context,
            len(self.running),
            self.queue_length,
            stride.linear * steps,
            attention,
            stride.launch * steps,
            stride.stall,
        )
        self.steps += steps
        self.times.compute_s += now - stride.start
        self.times.store_wait_s += stride.stall
