"""One serving replica in simulated time: decide a stride, wait for its end, commit it.

Steps with nothing to decide are advanced in one stride, which any outside event cuts at the end of the step in progress
The loop's cost is per decision, not per step or running sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from policies.base import PrefetchPolicy
from sim.clock import STEP_LAST, Clock
from sim.cost.interference import watch
from sim.cost.step import StepCost
from sim.cost.times import at
from sim.engine.accounts import Accounts
from sim.engine.batch import Batch, Chunk
from sim.engine.planning import plan_stride
from sim.engine.sequence import Sequence
from sim.engine.speculative_stride import plan_verification, verifying
from sim.engine.stride import Stride
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.prefetch import Prefetcher
from sim.hierarchy.tier import Listener
from sim.invariants import InvariantError
from sim.recorder import Recorder


class Decision(NamedTuple):
    """A step that is scheduled and whose memory is not free yet."""

    at: float
    chunks: list[Chunk]
    single: bool


class Replica:
    """One engine with its queue, its batch and its cache.

    `links` are those of its GPU: copies over them slow its steps.
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
        prefetch: PrefetchPolicy | None = None,
        links: Iterable[CopyEngine] = (),
        single_step: bool = False,
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
        self._interference = watch(cost.interference, links, self._copy_started)
        for low in self.cache.lower:
            low.tier.listen(Listener((batch.waiting, batch.loaded, self._stalled), self._wake))
        self._here = batch.cache.mover.here
        self._here.arriving = lambda: self.book(clock.now)
        self._here.woken = self._wake
        self.cache.mover.loaded = self._loaded
        self.prefetch_by(prefetch)

    def prefetch_by(self, policy: PrefetchPolicy | None) -> None:
        """Ask `policy` from now on what to fetch; what is being fetched goes on."""
        self.prefetcher = self.batch.left = None
        if policy is not None:
            wake, between = self._fetched, self._between_steps
            self.prefetcher = Prefetcher(policy, self.cache, self._clock, wake, between, self.batch.waiting)
            self.batch.left = self.prefetcher.admitted if self.prefetcher.hears_admitted else None

    # ---- events from outside

    def enqueue(self, seq: Sequence) -> None:
        """A request arrives."""
        seq.replica = self.index
        self.prompt_tokens += seq.input_tokens
        if self.batch.queue_matters:
            self.book(self._clock.now)  # what the steps begun so far evict does not depend on it
        self.batch.enqueue(seq)
        if self.prefetcher is not None:
            self.book(self._clock.now)  # it sees what the steps begun so far have taken
            self.prefetcher.arrived(seq)
            self._wake()
        elif self.batch.goes_first(seq):  # who queues behind a blocked head changes nothing now
            self._wake()

    def receive(self, seq: Sequence) -> None:
        """A request comes to decode here, whose prompt another replica computes."""
        reception = self.batch.reception
        assert reception is not None
        if self.batch.queue_matters:
            self.book(self._clock.now)
        seq.replica = self.index
        self.batch.waiting.number(seq)
        self.prompt_tokens += seq.input_tokens
        reception.asking.append(seq)
        if reception.asking[0] is seq:
            self._wake()

    def due(self, seq: Sequence) -> None:
        """Its prompt is computed and has memory here: from now on it waits for its KV, and no longer for the prompt."""
        reception = self.batch.reception
        assert reception is not None
        reception.due[seq.index] = None
        if self._stride is None and not (self._stalled or self._starting or self._awaiting):
            self._awaiting, self._last_end = True, self._clock.now  # it was idle until now

    def land(self, seq: Sequence) -> None:
        """All of its KV is here."""
        reception = self.batch.reception
        assert reception is not None
        self.book(self._clock.now)
        reception.land(seq)
        self._wake()

    def let_go(self, index: int) -> None:
        """The KV of a complete prompt has left for the replica that decodes it."""
        self.book(self._clock.now)
        self.batch.let_go(index)
        if self._stride is None and not (self._stalled or self._starting):
            self._starting = True
            self._clock.at(self._clock.now, self._start, STEP_LAST)

    def _loaded(self, seq: Sequence) -> None:
        """The last block that the sequence waited for is here."""
        if not self.cache.layerwise:
            self.batch.ready(seq, self._clock.now)
            return
        seq.arrived_s = self._clock.now
        if self._stride is not None and self._held_up:
            self._held_up = False
            self._end(self._plan_number)

    def _fetched(self) -> None:
        """A request that had to wait for its fetch need not any more."""
        self.batch.changed()
        self._wake()

    def book(self, now: float) -> None:
        """Reserve the blocks of the steps begun so far, which otherwise is done when the stride ends."""
        stride = self._stride
        if stride is not None and stride.booked < stride.steps and stride.decode_seqs:
            self._reserve_steps(stride, stride.begun(now))

    def check(self) -> None:
        """Recount what this replica's sequences hold. Raises InvariantError."""
        stride = self._stride
        if self._stalled:
            self.batch.check(int(not self.batch.paused), self._stalled[0].chunks)
        elif stride is None:
            self.batch.check(0, [])
        else:
            self.batch.check(stride.booked, stride.chunks)

    def _wake(self) -> None:
        """Something changed: start if idle, or cut the stride at the end of the step in progress."""
        waits = self.batch.wanting
        if self._stalled:
            if not self._here.leaving:
                decided_at, chunks, single = self._stalled.pop()
                # Whatever came meanwhile is looked at after one step.
                self._begin(decided_at, chunks, self._clock.now, single=single or waits)
            return
        if not waits:
            return
        stride, now = self._stride, self._clock.now
        if stride is not None:
            if stride.cut(now):
                self._schedule_end(stride)
        elif not self._starting:
            self._starting = True
            self._clock.at(now, self._start, STEP_LAST)

    def between_steps(self, call: Callable[[], None]) -> None:
        """Call back before the next step is decided, when nothing runs whose memory was counted on."""
        self._between_steps(call)

    def _between_steps(self, call: Callable[[], None]) -> None:
        """Call back before the next step is decided, which is as soon as the step in progress has ended."""
        self._between.append(call)
        if self._stride is not None:
            if self._stride.cut(self._clock.now):
                self._schedule_end(self._stride)
        elif not (self._stalled or self._starting):
            self._starting = True
            self._clock.at(self._clock.now, self._start, STEP_LAST)

    def _start(self) -> None:
        self._starting = False
        if self._stride is not None or self._stalled:
            return
        now = self._clock.now
        if self._awaiting:
            self.accounts.times.load_wait_s += now - self._last_end
        self._last_end = now
        self._next(now)

    def _copy_started(self) -> None:
        """Copies are charged by step, so the step in progress is looked at when it would end."""
        stride, now = self._stride, self._clock.now
        if stride is None or self._interference is None:
            return
        self._interference.started(now)
        steps = stride.begun(now)
        if steps == stride.steps:
            return
        if self.batch.wanting:
            # Whoever waits is looked at again at the end of a step beside which copies ran.
            stride.cut(now)
            self._schedule_end(stride)
        else:
            self._schedule_look(stride, steps)

    # ---- one round: decide, wait, commit

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
