"""Static batching: a batch is formed when nothing runs, and ends with the last of its sequences.

What served models before continuous batching, and what most papers measure: Hugging Face `generate`, FlexGen. First the
prompts of a batch run, then all rows decode; rows whose sequence has ended keep computing as padding and keep their
memory until the last has ended. SOURCE: Yu et al., Orca (OSDI'22), section 3.1 (request-level scheduling: early
finished requests cannot return their place, and are computed on); transformers `generate` (unfinished_sequences).
"""

from __future__ import annotations

from sim.engine.batch import Batch
from sim.engine.limits import EngineLimits
from sim.engine.members import Chunk
from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.hierarchy.lookup import NOTHING_FOUND
from sim.invariants import ensure
from traces.request import Request

FOR_EVER = 1 << 40
"""Tokens that a padding row has still to produce."""
ANY_TOKENS = 1 << 40


class StaticBatch(Batch):
    """Queue and batch of one replica under static batching, over planned memory that is taken at once.

    A batch takes waiting requests in order of arrival while there are rows, and memory for the lengths that they reach
    when all go on to the longest output. Their prompts run in one step, or in steps of `max_num_batched_tokens`. Each
    has its first token at the end of its own prompt, and answers end with their own last one, before the batch does.
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
        super().__init__(cache, limits, name, windows, prompts=prompts, lengths=lengths, host_limit=host_limit)
        ensure(cache.memory is not None and cache.memory.at_once, "static batches take memory at once")
        self._ended: list[Sequence] = []
        """Sequences of the batch that have ended, whose memory is held."""
        self._rows: list[Sequence] = []
        """What computes on in their rows."""
        self._prompted: list[Sequence] = []
        """Rows that wait for the prompts of the others."""
        self._waits: list[float] = []
        """What those of them that decode waited, s, until it is asked for."""

    @property
    def padding(self) -> int:
        """Rows that only keep others company."""
        return len(self._rows) if self.decoding.count else 0

    def schedule(self, now: float) -> tuple[list[Chunk], bool]:
        """The prompts of a batch, a new one if nothing runs; once they are complete, all rows decode."""
        if not self.running:
            self._form(now)
        elif not self._prompted and self.prefilling is None:
            return [], True
        chunks = self._prompts()
        if not chunks:
            self._waits = [now - seq.first_token_s for seq in self._prompted if now > seq.first_token_s]
            for seq in self._prompted:
                self.decoding.join(seq)
            self._prompted = []
        return chunks, True

    def decode(self, seq: Sequence) -> None:
        """The sequence has its first token, and decodes once the prompts of the others are complete."""
        self._prompted.append(seq)

    def taken_waits(self) -> list[float]:
        """Seconds that rows waited, once, for the prompts of others since they had their first token."""
        waits, self._waits = self._waits, []
        return waits

    def finish(self, seq: Sequence) -> None:
        """The sequence has its last token; its row goes on, unless it was the last."""
        del self.running[seq.index]
        self._ended.append(seq)
        if self.running:
            row = Sequence(Request(-1 - seq.index, seq.arrival_s, seq.input_tokens, FOR_EVER), [], 0)
            row.computed = seq.computed
            self._rows.append(row)
            if seq.generated == 1:
                self._prompted.append(row)
            else:
                self.decoding.join(row)
            return
        for row in self._rows:
            if row in self.decoding:
                self.decoding.leave(row)
        for ended in self._ended:
            self._release(ended)
        self._rows, self._ended, self._prompted = [], [], []

    def _holders(self) -> list[Sequence]:
        return [*self.running.values(), *self._ended]

    def _prompts(self) -> list[Chunk]:
        """The next prompts of the batch, or parts of them, that run in one step."""
        room = ANY_TOKENS if self.limits.whole_prompts else self.limits.max_num_batched_tokens
        chunks = []
        for seq in self.running.values():
            tokens = min(seq.known - seq.computed, room)
            if tokens:
                chunks.append((seq, tokens))
                room -= tokens
        return chunks

    def _form(self, now: float) -> None:
        """Take the next batch from the queue."""
        cache = self.cache
        seqs: list[Sequence] = []
        needs: list[tuple[int, float]] = []
        longest = 0
        for seq in self.waiting:
            if len(seqs) == self.limits.max_num_seqs:
                break
            if seq.output_tokens > longest:
                longest, more = seq.output_tokens, [self._needs(s, seq.output_tokens) for s in (*seqs, seq)]
            else:
                more = [*needs, self._needs(seq, longest)]
            fits = sum([blocks for blocks, _ in more]) <= cache.available_blocks
            if not (fits and self.host.fits(sum([host for _, host in more]))):
                break
            seqs.append(seq)
            needs = more
        ensure(bool(seqs) or not self.waiting, f"{self._name} is stuck: nothing runs and nothing can be admitted")
        for seq, (blocks, host) in zip(seqs, needs, strict=True):
            self.waiting.popleft()
            admitted = cache.admit(seq, NOTHING_FOUND) and cache.take(seq, blocks)
            ensure(admitted, f"{self._name}: no room for a batch that has it")
            self.host.take(seq.index, host)
            seq.admit_s = seq.load_done_s = now
            self.running[seq.index] = seq

    def _needs(self, seq: Sequence, outputs: int) -> tuple[int, float]:
        """Blocks of HBM and bytes of host memory of a row that goes on to as many output tokens."""
        memory = self.cache.memory
        assert memory is not None
        final = seq.input_tokens + outputs - 1
        return memory.whole_blocks(seq.input_tokens, final), memory.host_bytes(seq.input_tokens, final)
