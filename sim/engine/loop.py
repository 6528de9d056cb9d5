"""The loop of one replica: decide a stride, wait for its end, commit it.

Its cost is per decision, not per step or running sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sim.clock import STEP_LAST, Clock
from sim.cost.interference import Interference
from sim.cost.step import StepCost
from sim.cost.times import at
from sim.engine.accounts import Accounts
from sim.engine.batch import Batch
from sim.engine.members import Chunk
from sim.engine.planning import plan_stride
from sim.engine.sequence import Sequence
from sim.engine.speculative_stride import plan_verification, verifying
from sim.engine.stride import Stride
from sim.hierarchy.prefetch import Prefetcher
from sim.invariants import InvariantError
from sim.recorder import Recorder


class Decision(NamedTuple):
    """A step that is scheduled and whose memory is not free yet."""

    at: float
    chunks: list[Chunk]
    single: bool


class Loop:
    """Decides what `batch` runs next, waits for it, and commits it; `sim.engine.replica` tells it what happens outside.

    `single_step` advances every step on its own: the same results, slower (for the test that proves it).
    """

    def __init__(
        self,
        index: int,
        clock: Clock,
        cost: StepCost,
        batch: Batch,
        recorder: Recorder,
        finished: Callable[[Sequence], None],
        *,
        single_step: bool,
    ) -> None:
        self.prefetcher: Prefetcher | None = None
        self.index = index
        self.batch = batch
        self.cache = batch.cache
        self.accounts = Accounts(index, cost, recorder)
        self.prompt_tokens = 0
        """Prompt tokens of the requests here that have no token yet; of a decode instance, no memory yet."""
        self._clock = clock
        self._cost = cost
        self._recorder = recorder
        self._finished = finished
        self._single_step = single_step
        self._verifying = verifying(batch, cost)
        """What steps verify, if tokens are drafted."""
        self._stalled: list[Decision] = []
        """The step that is scheduled and waits for memory, if there is one."""
        self._stride: Stride | None = None
        self._plan_number = 0
        self._last_end = 0.0
        self._flowing_until = -1.0
        """When the last step with prefill chunks ended, s."""
        self.begun: Callable[[Stride], None] | None = None
        """Called when a step with prefill chunks begins (sim.disaggregation)."""
        self.passed: Callable[[Sequence], None] | None = None
        """Called when a chunk has run that does not end its prompt."""
        self._starting = False
        self._awaiting = False
        """Nothing runs, and requests wait for KV on its way, or for memory that KV on its way leaves."""
        self._between: list[Callable[[], None]] = []
        self._held_up = False
        """The step in progress is over but for layers that wait for their part of a prefix."""
        self._interference: Interference | None = None
        """What copies beside the steps cost them."""
        self._here = batch.cache.mover.here

    def _start(self) -> None:
        self._starting = False
        if self._stride is not None or self._stalled:
            return
        now = self._clock.now
        if self._awaiting:
            self.accounts.times.load_wait_s += now - self._last_end
        self._last_end = now
        self._next(now)

    def _next(self, now: float) -> None:
        batch = self.batch
        while self._between:
            self._between.pop(0)()
        chunks, settled = batch.schedule(now)
        if not chunks and not batch.decoding.count:  # idle until something arrives
            self._awaiting = bool(batch.loading or batch.loaded) or any(seq.fetching for seq in batch.waiting)
            self._awaiting = self._awaiting or batch.awaits_others
            return
        single = self._single_step or not settled
        if self._here.leaving:
            self._stalled.append(Decision(now, chunks, single))
        else:
            self._begin(now, chunks, now, single=single)

    def _begin(self, decided_at: float, chunks: list[Chunk], now: float, *, single: bool) -> None:
        """Start what was decided; later than decided if evicted blocks had to be copied away first."""
        batch = self.batch
        copying = self._interference is not None and self._interference.begin(now)
        single = single or (copying and batch.wanting)
        flowing = self._flowing_until == now
        if self._verifying is None:
            stride = plan_stride(batch, chunks, self._cost, now, now - decided_at, single=single, flowing=flowing)
        else:
            stride = plan_verification(batch, self._verifying, chunks, now, now - decided_at, single=single)
        self._stride = stride
        if chunks and self.begun is not None:
            self.begun(stride)
        if copying and stride.steps > 1:
            self._schedule_look(stride, 1)
        else:
            self._plan_number += 1
            self._clock.at(stride.end, partial(self._end, self._plan_number), STEP_LAST)

    def _schedule_end(self, stride: Stride) -> None:
        self._plan_number += 1
        self._clock.at(stride.end, partial(self._end, self._plan_number), STEP_LAST)

    def _schedule_look(self, stride: Stride, steps: int) -> None:
        """Look at a stride when its first `steps` steps would be over, and go on with it then."""
        self._plan_number += 1
        self._clock.at(stride.end_of(steps - 1), partial(self._look, self._plan_number, steps), STEP_LAST)

    def _look(self, number: int, steps: int) -> None:
        """A step beside which copies ran would be over; when it is, the next one begins, maybe beside copies too."""
        stride, copies = self._stride, self._interference
        if number != self._plan_number or stride is None or stride.ends is None or copies is None:
            return  # the stride was cut
        later = not copies.quiet and stride.slow_down(copies, self._cost, self._clock.now, steps)
        if later and not self._clock.skip(stride.end_of(steps - 1)):
            self._schedule_look(stride, steps)
        elif copies.begin(self._clock.now) and steps + 1 < stride.steps:
            self._schedule_look(stride, steps + 1)
        else:
            self._schedule_end(stride)

    def _end(self, number: int) -> None:
        stride = self._stride
        if number != self._plan_number or stride is None:
            return  # the stride was cut, and ended earlier
        copies = self._interference
        if copies is not None and copies.quiet:
            stride.charged = stride.steps  # and not for what begins while it waits for layers
        elif copies is not None:
            longer = stride.slow_down(copies, self._cost, self._clock.now, stride.steps)
            if longer and not self._clock.skip(stride.end):
                self._schedule_end(stride)
                return
        if self.cache.layerwise and not self._layers_are_here(stride):
            return
        now, batch = stride.end, self.batch
        if stride.booked < stride.steps and stride.decode_seqs:
            self._reserve_steps(stride, stride.steps)
        self.accounts.add(stride, now, self._last_end, batch)
        if batch.reception is not None and stride.decode_seqs:
            batch.reception.stepped(stride.end_of(0))
        for seq in batch.decoding.advance(stride.steps) if stride.decode_seqs else ():
            self._finish(seq, now)
        if stride.chunks:
            self._finish_chunks(stride, now)
            self._flowing_until = now
        self._stride = None
        self._last_end = now
        self._next(now)

    def _layers_are_here(self, stride: Stride) -> bool:
        """False if a layer of the step had to wait for its part of a prefix: the step then ends later.

        Layers are loaded and computed in turn, so the step ends when its own time is over or, if that is later, one
        layer's compute after the last load (the recurrence f_i = max(f_(i-1), l_i) + c of equal layers); with
        synchronous loads after all of its compute, which then began no sooner.
        """
        if any(seq.pending for seq, _ in stride.chunks):
            self._held_up = True
            return False
        if self.cache.synchronous:
            step_s = stride.end - stride.start - stride.slowed
        else:
            step_s = (at(stride.times.linear, 0) + at(stride.times.attention, 0)) / self._cost.layers
        end = max((seq.arrived_s + step_s for seq, _ in stride.chunks), default=0.0)
        for seq, _ in stride.chunks:
            seq.arrived_s = 0.0
        if end <= stride.end:
            return True
        stride.wait_for_layers(end)
        self._schedule_end(stride)
        return False

    def _reserve_steps(self, stride: Stride, steps: int) -> None:
        if steps > stride.booked:
            group = self.batch.decoding
            blocks = group.blocks(steps) - group.blocks(stride.booked)
            if blocks and not self.cache.reserve(blocks):
                raise InvariantError(f"replica {self.index}: a stride outgrew its memory")
            stride.booked = steps

    def book(self, now: float) -> None:
        """Reserve the blocks of the steps begun so far, which otherwise is done when the stride ends."""
        stride = self._stride
        if stride is not None and stride.booked < stride.steps and stride.decode_seqs:
            self._reserve_steps(stride, stride.begun(now))

    def _finish_chunks(self, stride: Stride, now: float) -> None:
        """Prefill chunks have run: offer what they filled for offload, and let completed prompts decode."""
        batch, filled = self.batch, []
        batch.prefilling = None
        decided_s, own_s = stride.start - stride.stall, stride.own_s(now)
        for seq, tokens in stride.chunks:
            seq.ran(tokens, decided_s, own_s)
            filled += seq.filled
            seq.filled = []
            if seq.computed < seq.known:
                batch.prefilling = seq
                if self.passed is not None:
                    self.passed(seq)
                continue
            if seq.generated:
                self._recorder.gap(now - seq.token_s, 1)
                seq.resumed += 1
                if batch.reception is not None:
                    batch.reception.resumed(seq, now)
            else:
                seq.first_token_s = now
                self.prompt_tokens -= seq.input_tokens
            if seq.loss is not None:
                seq.loss.end_s, seq.loss = now, None
            seq.generated += 1
            if seq.generated == seq.output_tokens:
                self._finish(seq, now)
            else:
                batch.decode(seq)
        if filled:
            self.cache.filled(filled)

    def _finish(self, seq: Sequence, now: float) -> None:
        seq.finish_s = now
        seq.status = "finished"
        self.batch.finish(seq)
        if self.prefetcher is not None and not seq.leaves:
            self.prefetcher.finished(seq)
        self._finished(seq)
