"""TensorRT-LLM's in-flight batching: whom its capacity scheduler admits, and prompts that run whole.

SOURCE: NVIDIA/TensorRT-LLM, cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp (GuaranteedNoEvictScheduler,
MaxUtilizationScheduler) and microBatchScheduler.cpp. Both take requests in order of arrival and stop at the first that
does not fit.

guaranteed_no_evict  a request starts only if the blocks of all its prompt and output fit beside those that are
                     promised to the ones before it, so nobody is ever paused
max_utilization      it starts if the blocks of its whole prompt are there now; when the running ones need more than
                     there is, the most recently started is paused, loses its blocks and is computed again

Without chunked context a prompt runs whole: one that does not fit the tokens left in a step waits, and those behind it.
What was paused and has become longer than a step is computed again in chunks.
"""

from __future__ import annotations

from sim.engine.batch import Batch
from sim.engine.sequence import Sequence
from sim.hierarchy.lookup import Prefix


class InFlightBatch(Batch):
    """Queue and batch of one replica under a capacity scheduler (`EngineLimits.no_evict`, `chunked`)."""

    _promised = 0
    """Bytes of HBM for the whole length of all sequences that were admitted."""

    def _fits(self, seq: Sequence, prefix: Prefix, budget: int) -> bool:
        if not prefix.behind and not self._chunk(seq, seq.known - prefix.tokens, budget):
            return False
        cache = self.cache
        hbm, token_bytes = cache.hbm, cache.token_bytes
        pinned = hbm.pinned + cache.newly_pinned(seq, prefix.found) + prefix.behind * token_bytes
        shared = prefix.tokens * token_bytes
        if not self.limits.no_evict:
            need = cache.first_bytes(seq, prefix.tokens, seq.known - prefix.tokens)
            return pinned + hbm.reserved + need <= hbm.capacity
        # The promises have the blocks that are pinned as covered; `Batch.check` recounts the rest.
        return pinned + self._promised - cache.covered + cache.whole_bytes(seq) - shared <= hbm.capacity

    def _chunk(self, seq: Sequence, left: int, budget: int) -> int:
        limits = self.limits
        if limits.chunked or left <= budget or left > limits.max_num_batched_tokens:
            return min(left, budget)
        return 0

    def _admitted(self, seq: Sequence) -> None:
        self._promised += self.cache.whole_bytes(seq)

    def _release(self, seq: Sequence) -> None:
        self._promised -= self.cache.whole_bytes(seq)
        super()._release(seq)
