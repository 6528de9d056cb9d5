"""Prompts that another replica computed, on their way into the batch of one that decodes them.

A decoding instance first takes memory for the whole prompt, in order of arrival, then the KV comes, and then the
sequence joins the batch with the next step that has a place for it. SOURCE: SGLang's decode instance keeps the same
three queues (sgl-project/sglang, python/sglang/srt/disaggregation/decode.py: DecodePreallocQueue, DecodeTransferQueue,
and the waiting queue); vLLM allocates all blocks before its connector pulls them, and schedules the request when they
are there (vllm/v1/core/sched/scheduler.py: WAITING_FOR_REMOTE_KVS).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache


class Reception:
    """Sequences that come from elsewhere to decode on one replica.

    asking   no memory yet
    coming   have memory for their prompt, whose KV is on its way
    due      of those, whose prompt is computed: what is not here yet is on the link
    landed   all of it is here; they wait for a place in the batch
    joined   are in the step that was decided last, which is their first one here

    reuse    what HBM has cached of a prompt is used and need not come
    placed   called with a sequence when it has memory; `Sequence.published` of its tokens were here
    entered  called with a sequence, and when its first step here was decided, s
    ran      called with a sequence, and when it had its first token here, s
    """

    def __init__(
        self,
        cache: ReplicaCache,
        reuse: bool,
        placed: Callable[[Sequence], None],
        entered: Callable[[Sequence, float], None],
        ran: Callable[[Sequence, float], None],
    ) -> None:
        self.asking: deque[Sequence] = deque()
        self.coming: dict[int, Sequence] = {}
        self.due: dict[int, None] = {}
        self.landed: deque[Sequence] = deque()
        self.joined: list[Sequence] = []
        self._again: dict[int, None] = {}
        """Those that gave way before their first step here."""
        self._cache = cache
        self._reuse = reuse
        self._placed = placed
        self._entered = entered
        self._ran = ran

    def __len__(self) -> int:
        return len(self.asking) + len(self.coming) + len(self.landed)

    @property
    def wants(self) -> bool:
        """Somebody waits for the next decision."""
        return bool(self.asking or self.landed)

    @property
    def holders(self) -> list[Sequence]:
        """Sequences that hold memory."""
        return [*self.coming.values(), *self.landed]

    def place(self) -> None:
        """Memory for those that ask for it, in order, as far as there is any."""
        while self.asking and self._cache.take_in(self.asking[0], reuse=self._reuse):
            seq = self.asking.popleft()
            self.coming[seq.index] = seq
            self._placed(seq)

    def land(self, seq: Sequence) -> None:
        """All KV of the sequence's prompt is here."""
        del self.coming[seq.index]
        self.due.pop(seq.index, None)
        self._cache.landed(seq)
        self.landed.append(seq)

    def join(self, seq: Sequence, now: float) -> None:
        """The sequence is in the step that was decided now."""
        self.joined.append(seq)
        self._entered(seq, now)

    def taken_back(self) -> None:
        """The last one to join gives way before its first step."""
        self._again[self.joined.pop().index] = None

    def resumed(self, seq: Sequence, end: float) -> None:
        """A sequence that gave way has its next token."""
        if seq.index in self._again:
            del self._again[seq.index]
            self._ran(seq, end)

    def stepped(self, end: float) -> None:
        """The step that was decided last has ended."""
        joined, self.joined = self.joined, []
        for seq in joined:
            self._ran(seq, end)
