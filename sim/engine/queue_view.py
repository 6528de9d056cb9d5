"""What a scheduling policy may see of a replica: views of `sim.engine.chosen` (policies.scheduling.base)."""

from __future__ import annotations

from collections.abc import Sequence as Listed
from typing import TYPE_CHECKING, overload

from policies.scheduling.base import WaitingRequest

if TYPE_CHECKING:
    from sim.engine.chosen import ChosenBatch
    from sim.engine.sequence import Sequence


class Asked:
    """What a policy may see of a request, waiting or running.

    whole: output tokens that it is predicted to produce in all. rank: what the policy said when it came to the queue.
    place: of equals, lower ones first.
    """

    def __init__(self, batch: ChosenBatch, seq: Sequence, whole: int, place: int) -> None:
        self._batch = batch
        self.seq = seq
        self.whole = whole
        self.rank = 0.0
        self.place = place

    @property
    def index(self) -> int:
        return self.seq.index

    @property
    def arrival_s(self) -> float:
        return self.seq.arrival_s

    @property
    def priority(self) -> int:
        return self.seq.priority

    @property
    def session(self) -> int:
        return self.seq.session

    @property
    def turn(self) -> int:
        return self.seq.turn

    @property
    def input_tokens(self) -> int:
        return self.seq.input_tokens

    @property
    def known_tokens(self) -> int:
        return self.seq.known

    @property
    def preemptions(self) -> int:
        return self.seq.preemptions

    @property
    def generated(self) -> int:
        """Output tokens that it has."""
        seq, decoding = self.seq, self._batch.decoding
        return seq.generated + (decoding.gained(seq) if seq in decoding else 0)

    @property
    def predicted_tokens(self) -> int:
        return max(1, self.whole - self.generated)

    @property
    def tokens(self) -> int:
        return self.seq.input_tokens + self.generated

    def cached_tokens(self) -> int:
        prefix = self._batch.cache.lookup(self.seq)
        return prefix.tokens - prefix.behind


class Line(Listed[Asked]):
    """Waiting requests that need not wait for a fetch of their own, in order; who is first costs no look at all."""

    def __init__(self, batch: ChosenBatch) -> None:
        self._batch = batch
        self._all: list[Asked] | None = None

    @property
    def empty(self) -> bool:
        """Everybody waits for a fetch, or nobody waits."""
        return self._first() is None

    def _first(self) -> Asked | None:
        asked = self._batch.asked
        for seq in self._batch.waiting:
            if not seq.fetching:
                return asked[seq.index]
        return None

    def _listed(self) -> list[Asked]:
        if self._all is None:
            asked = self._batch.asked
            self._all = [asked[seq.index] for seq in self._batch.waiting if not seq.fetching]
        return self._all

    def __len__(self) -> int:
        return len(self._listed())

    @overload
    def __getitem__(self, index: int) -> Asked: ...
    @overload
    def __getitem__(self, index: slice) -> list[Asked]: ...
    def __getitem__(self, index: int | slice) -> Asked | list[Asked]:
        if index == 0:
            first = self._first()
            if first is None:
                raise IndexError(index)
            return first
        return self._listed()[index]


class View:
    """What a policy may see of a replica (policies.scheduling.base.QueueView)."""

    def __init__(self, batch: ChosenBatch, now: float) -> None:
        self._batch = batch
        self.now = now
        self.line = Line(batch)

    @property
    def waiting(self) -> Listed[WaitingRequest]:
        return self.line

    @property
    def running(self) -> list[Asked]:
        batch = self._batch
        return [batch.asked[seq.index] for seq in batch.admitted()]

    @property
    def capacity_tokens(self) -> int:
        cache = self._batch.cache
        return cache.hbm.capacity // cache.token_bytes

    @property
    def free_tokens(self) -> int:
        cache = self._batch.cache
        return cache.hbm.available // cache.token_bytes

    def peak_tokens(self, request: WaitingRequest) -> int:
        batch = self._batch
        return -(-batch.peak_bytes(batch.asked[request.index]) // batch.cache.token_bytes)
