"""vLLM's scheduler with a policy that says whom to admit next (`policies.scheduling`)."""

from __future__ import annotations

import math
from statistics import NormalDist

from hw_profiles.errors import InputError
from policies.scheduling.base import Scheduler, place_of
from sim.engine.batch import Batch
from sim.engine.forecast import NEVER, Forecast, Held
from sim.engine.limits import EngineLimits
from sim.engine.members import Chunk
from sim.engine.queue import Ranked, Waiting
from sim.engine.queue_view import Asked, View
from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache
from traces.random import stream

STREAM = "predicted_output"
_NORMAL = NormalDist()


class ChosenBatch(Batch):
    """Queue and batch of one replica whose waiting requests a policy orders and admits.

    scheduler   the policy, of this replica alone
    seed        of the scenario: predictions are drawn by request
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
        scheduler: Scheduler,
        seed: int,
    ) -> None:
        super().__init__(cache, limits, name, windows, prompts=prompts, lengths=lengths, host_limit=host_limit)
        self.asked: dict[int, Asked] = {}
        """What is shown of every request here."""
        self._scheduler = scheduler
        self._seed = seed
        self._now = 0.0
        self._arrived = self._gave_way = 0
        """Requests that came, and how often one gave way."""
        self._settled = False
        """The policy has been asked, and nothing has happened since."""
        self._chosen: Sequence | None = None
        """Whom it chose."""

    def _new_queue(self) -> Waiting:
        return Ranked(self._key)

    def schedule(self, now: float) -> tuple[list[Chunk], bool]:
        """As Batch.schedule."""
        self._now = now
        return super().schedule(now)

    # ---- what changes whom to admit

    def changed(self) -> None:
        """Something happened: the policy is asked again."""
        self._settled = False

    def goes_first(self, seq: Sequence) -> bool:
        """Any request that arrives may be chosen."""
        return True

    def enqueue(self, seq: Sequence) -> None:
        """A new request comes to the queue."""
        self._arrived += 1
        asked = self.asked[seq.index] = Asked(self, seq, self._predicted(seq), self._arrived)
        asked.rank = self._scheduler.rank(asked)
        super().enqueue(seq)
        self.changed()

    def ready(self, seq: Sequence, now: float) -> None:
        """As Batch.ready."""
        super().ready(seq, now)
        self.changed()

    def decode(self, seq: Sequence) -> None:
        """The sequence has its first token, or its next after a preemption."""
        super().decode(seq)
        self.changed()

    def finish(self, seq: Sequence) -> None:
        """The sequence has its last token."""
        super().finish(seq)
        del self.asked[seq.index]
        self.changed()

    def _forget(self, seq: Sequence) -> None:
        asked = self.asked[seq.index]
        self._gave_way += 1
        asked.place = -self._gave_way  # as in vLLM, ahead of its equals
        asked.rank = self._scheduler.rank(asked)
        super()._forget(seq)
        self.changed()

    def _admitted(self, seq: Sequence) -> None:
        self._chosen = None
        self.changed()

    def _key(self, seq: Sequence) -> tuple[float, int]:
        asked = self.asked[seq.index]
        return asked.rank, asked.place

    def _predicted(self, seq: Sequence) -> int:
        """Output tokens that the request is predicted to produce: the true number, times exp(error x normal)."""
        error = self._scheduler.error
        if not error:
            return seq.output_tokens
        normal = _NORMAL.inv_cdf((float(stream(self._seed, STREAM, seq.index).random()) + 2**-54) / (1 + 2**-53))
        return max(1, round(seq.output_tokens * math.exp(error * normal)))

    # ---- asking

    def _next_waiting(self) -> int | None:
        if not self._settled:
            self._settled, self._chosen = True, self._choose()
        if self._chosen is None:
            return None
        for place, seq in enumerate(self.waiting):
            if seq is self._chosen:
                return place
        return None

    def _choose(self) -> Sequence | None:
        view = View(self, self._now)
        if view.line.empty:
            return None
        answer = self._scheduler.choose(view)
        if answer is None:
            if not self.running and not self.loading and not self.loaded:
                raise self._broke("choose() admitted nobody while nothing runs, so nothing would ever happen")
            return None
        place = place_of(answer, len(view.line) if answer else 1)
        if place is None:
            raise self._broke(f"choose() returned {answer!r}, expected a place in queue.waiting or None")
        return view.line[place].seq

    def _broke(self, what: str) -> InputError:
        return InputError(f"scheduling policy {type(self._scheduler).__name__} broke its contract: {what}")

    def admitted(self) -> list[Sequence]:
        """Sequences that were admitted, in order."""
        return [*self.running.values(), *(seq for _, seq in self.loaded), *self.loading.values()]

    def peak_bytes(self, asked: Asked) -> int:
        """The most HBM that the admitted sequences will hold if `asked` is admitted now and nobody after it."""
        cache, decoding = self.cache, self.decoding
        forecast = Forecast(cache.block_tokens, cache.block_bytes, cache.hbm.pinned)
        room = self.limits.max_num_batched_tokens - len(self.running) - 1
        """Tokens of prompts that every step has room for from now on."""
        before = 0
        for seq in self.running.values():
            left = self.asked[seq.index].predicted_tokens
            if seq in decoding:
                tokens = seq.computed + decoding.gained(seq) + 1
                forecast.add(self._held(seq, tokens, left, left, seq.covered))
                continue
            before += seq.known - seq.computed
            forecast.add(self._prompting(seq, left, before, room, seq.covered))
        for seq in (*[seq for _, seq in self.loaded], *self.loading.values()):
            forecast.add(self._prompting(seq, self.asked[seq.index].predicted_tokens, 0, 0, seq.covered))
        seq = asked.seq
        prefix = cache.lookup(seq)
        here = (prefix.tokens - prefix.behind) * cache.token_bytes
        tokens = before + seq.known - prefix.tokens
        mine = self._prompting(seq, asked.predicted_tokens, tokens, 0 if prefix.behind else room, here)
        return forecast.peak(mine, cache.newly_pinned(seq, prefix.found))

    def _prompting(self, seq: Sequence, left: int, tokens: int, room: int, covered: int) -> Held:
        """The forecast of a sequence whose prompt is complete when `tokens` more have run, `room` in each step at
        least; without room, nobody knows when."""
        last = -(-tokens // room) + left - 1 if room > 0 else NEVER
        return self._held(seq, seq.known, left, last, covered)

    def _held(self, seq: Sequence, tokens: int, grows: int, last: int, covered: int) -> Held:
        """The forecast of a sequence that grows by a token per step; else of the most that it ever holds."""
        cache, final = self.cache, tokens + grows - 1
        if cache.memory is not None:
            return Held(tokens, grows, last, 0, cache.memory.whole_blocks(seq.input_tokens, final) * cache.block_bytes)
        if cache.slots_ahead:  # who drafts takes memory ahead, and ends nobody knows when
            whole = cache.blocks_of(final + 1 + cache.slots_ahead) * cache.block_bytes
            return Held(tokens, grows, NEVER, covered, whole)
        return Held(tokens, grows, last, covered)
