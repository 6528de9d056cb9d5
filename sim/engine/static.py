"""Static batching: a batch is formed when nothing runs, and ends with the last of its sequences.

What served models before continuous batching, and what most papers measure: Hugging Face `generate`, FlexGen. The
prompts of a batch run together in one step; rows whose sequence has ended keep computing as padding and keep their
memory until the last has ended. SOURCE: Yu et al., Orca (OSDI'22), section 3.1 (request-level scheduling: early
finished requests cannot return their place, and are computed on); transformers `generate` (unfinished_sequences).
"""

from __future__ import annotations

from sim.engine.batch import Batch, Chunk, EngineLimits
from sim.engine.sequence import Sequence
from sim.hierarchy.cache import ReplicaCache
from sim.invariants import ensure
from traces.request import Request

FOR_EVER = 1 << 40
"""Tokens that a padding row has still to produce."""


class StaticBatch(Batch):
    """Queue and batch of one replica under static batching, over planned memory that is taken at once.

    A batch takes waiting requests in order of arrival while there are rows, memory for the lengths that they reach when
    all go on to the longest output, and (unless whole prompts run whatever their length) tokens in a step for all of
    their prompts. Only a prompt longer than a step runs in chunks, in a batch of its own. Answers are sent when
    they are complete, before the batch is.
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

    @property
    def padding(self) -> int:
        """Rows that only keep others company."""
        return len(self._rows)

    def schedule(self, now: float) -> tuple[list[Chunk], bool]:
        """The prompts of a new batch if nothing runs; else the batch goes on."""
        if not self.running:
            self._form(now)
            return [(seq, self._next_chunk(seq)) for seq in self.running.values()], True
        if self.prefilling is not None:
            return [(self.prefilling, self._next_chunk(self.prefilling))], True
        return [], True

    def finish(self, seq: Sequence) -> None:
        """The sequence has its last token; its row goes on, unless it was the last."""
        del self.running[seq.index]
        self._ended.append(seq)
        if self.running:
            row = Sequence(Request(-1 - seq.index, seq.arrival_s, seq.input_tokens, FOR_EVER), [], 0)
            row.computed = seq.computed
            self._rows.append(row)
            self.decoding.join(row)
            return
        for row in self._rows:
            self.decoding.leave(row)
        for ended in self._ended:
            self._release(ended)
        self._rows, self._ended = [], []

    def _holders(self) -> list[Sequence]:
        return [*self.running.values(), *self._ended]

    def _next_chunk(self, seq: Sequence) -> int:
        left = seq.known - seq.computed
        return left if self.limits.whole_prompts else min(left, self.limits.max_num_batched_tokens)

    def _form(self, now: float) -> None:
        """Take the next batch from the queue."""
        cache = self.cache
        seqs: list[Sequence] = []
        needs: list[tuple[int, float]] = []
        tokens = longest = 0
        for seq in self.waiting:
            tokens += seq.known
            if len(seqs) == self.limits.max_num_seqs or (seqs and not self._one_step(tokens)):
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
            ensure(cache.admit(seq, []) and cache.take(seq, blocks), f"{self._name}: no room for a batch that has it")
            self.host.take(seq.index, host)
            seq.admit_s = seq.load_done_s = now
            self.running[seq.index] = seq

    def _one_step(self, tokens: int) -> bool:
        """True if as many prompt tokens can run in one step."""
        return self.limits.whole_prompts or tokens <= self.limits.max_num_batched_tokens

    def _needs(self, seq: Sequence, outputs: int) -> tuple[int, float]:
        """Blocks of HBM and bytes of host memory of a row that goes on to as many output tokens."""
        memory = self.cache.memory
        assert memory is not None
        final = seq.input_tokens + outputs - 1
        return memory.whole_blocks(seq.input_tokens, final), memory.host_bytes(seq.input_tokens, final)
