"""One serving replica in simulated time: what happens around its loop (`sim.engine.loop`).

Steps with nothing to decide are advanced in one stride, which any outside event cuts at the end of the step in
progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policies.base import PrefetchPolicy
from sim.clock import STEP_LAST, Clock
from sim.cost.interference import watch
from sim.cost.step import StepCost
from sim.engine.batch import Batch
from sim.engine.loop import Loop
from sim.engine.sequence import Sequence
from sim.hierarchy.link import CopyEngine
from sim.hierarchy.prefetch import Prefetcher
from sim.hierarchy.tier import Listener
from sim.recorder import Recorder


class Replica(Loop):
    """One engine with its queue, its batch and its cache.

    `links` are those of its GPU: copies over them slow its steps. `single_step`: as in Loop.
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
        super().__init__(index, clock, cost, batch, recorder, finished, single_step=single_step)
        self._interference = watch(cost.interference, links, self._copy_started)
        for low in self.cache.lower:
            low.tier.listen(Listener((batch.waiting, batch.loaded, self._stalled), self._wake))
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
