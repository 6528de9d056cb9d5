"""Prefill attention of one layer: arithmetic, the longest tile, and what its launch moves besides.

SOURCE of the forms: kvsim's fits of aiconfigurator's prefill tables (docs/profiles.md). They time an engine's attention
call, which also writes the new keys and values into the cache: what a token costs per KV head is three passes over its
keys and values at the HBM peak (read, written, read again) on all five machines, H100 to L40S.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hw_profiles.residual import Number, Residual

BASE_HEADS = 32
"""Query heads that `PrefillModel.per_token` was measured with."""
SPAN_CORNER = 4.0
"""How sharp the maximum of work and longest tile is; 4 fits public prefill tables of H100, A100 and L40S alike."""
WRITE_VALUES = 512
"""Values of a token's keys from which on a block that writes them has all of its threads: vLLM launches a block of
min(KV heads x head width, 512) threads per token (csrc/cache_kernels.cu, reshape_and_cache_flash)."""
TILE_TOKENS = 128
"""Query rows (tokens x heads of a group) of a tile, and the shortest part of a context that FlashInfer gives to one of
several blocks (include/flashinfer/attention/scheduler.cuh, FA2DetermineCtaTileQ, PrefillSplitQOKVIndptr)."""
FOOTPRINT = (4, 8)
"""Bytes per value of what a launch touches in bf16: queries and outputs of query heads; keys and values of KV heads,
as they come and as they are cached."""


@dataclass(frozen=True)
class PrefillMemory:
    """What a prefill launch moves besides its arithmetic. Zeros and ones: nothing that grows otherwise than tokens.

    per_kv       s per new token and KV head: its keys and values written to the cache and read
    per_write    s per new token, by the threads that write it: in proportion up to `WRITE_VALUES`, then constant
    warm, warm_bytes  share of the times per token and per KV head while what is touched fits in L2: up to `warm_bytes`
                 of it, all of them from twice that on
    split, per_split  s per launch and per new token when contexts are cut into parts that another kernel merges, which
                 leaves no long tile: FlashInfer's planner does so while tiles of `TILE_TOKENS` query rows are at most
                 `split_tiles`
    """

    per_kv: float = 0.0
    per_write: float = 0.0
    warm: float = 1.0
    warm_bytes: float = 0.0
    split: float = 0.0
    per_split: float = 0.0
    split_tiles: float = 0.0


PLAIN = PrefillMemory()


@dataclass(frozen=True)
class PrefillModel:
    """Prefill attention of one layer, one launch: t0 + per_token * tokens + work, and `memory`.

    work = flops / flops_per_s, or ((flops / flops_per_s)^q + (per_context * longest)^q)^(1/q), q = SPAN_CORNER, where
    `per_context` (s per token) is known: a tile of queries runs through its whole context on one multiprocessor, so few
    tiles over a `longest` context of P + S tokens are bound by that (a short chunk after a long cached prefix).
    heads, kv_heads, head_dim: of this rank. residual: over some of heads, tokens x heads / `BASE_HEADS` (what a launch
    is cut into), the mean context of a new token, P + S / 2 for S tokens after P, and query heads per KV head.
    """

    t0: float
    per_token: float
    flops: float
    residual: Residual | None = None
    heads: int = BASE_HEADS
    head_dim: int = 128
    per_context: float = 0.0
    kv_heads: int = 8
    memory: PrefillMemory = PLAIN

    @property
    def writes_cache(self) -> bool:
        """True if the times have the write of new keys and values into the cache inside."""
        return self.memory.per_kv > 0 or self.memory.per_write > 0

    def seconds(self, tokens: Number, flops: Number) -> Number:
        """Time for `tokens` new tokens; `flops` from `prefill_flops`. Chunks of one launch add up in both."""
        if not self.per_context and self.residual is None and self.memory is PLAIN:
            return self.t0 + self.per_token * tokens + flops / self.flops
        context = flops / (4 * self.heads * self.head_dim * tokens)
        half = tokens / 2
        # the last new token sees the mean and at most half of the new ones, and at most the mean, more
        more = np.minimum(half, context) if isinstance(half, np.ndarray) else min(half, context)
        longest = context + more
        split = self._split(tokens, longest) if self.memory.split_tiles else 0.0
        seconds = self.t0 + self._moved(tokens) + split * (self.memory.split + self.memory.per_split * tokens)
        seconds = seconds + self._work(flops, longest * (1.0 - split))
        return seconds if self._table is None else seconds * self._ratio(self._table, tokens, context)

    def _work(self, flops: Number, longest: Number) -> Number:
        work = flops / self.flops
        if not self.per_context:
            return work
        smooth: Number = (work**SPAN_CORNER + (self.per_context * longest) ** SPAN_CORNER) ** (1 / SPAN_CORNER)
        return smooth

    def _split(self, tokens: Number, longest: Number) -> Number:
        """1 where contexts are cut into parts, else 0."""
        few = tokens * self.heads <= self.memory.split_tiles * TILE_TOKENS
        parts = longest > TILE_TOKENS
        if isinstance(tokens, np.ndarray):
            return np.asarray(few & parts, dtype=np.float64)
        return float(few and parts)

    def _moved(self, tokens: Number) -> Number:
        memory = self.memory
        per_token = self.per_token + memory.per_kv * self.kv_heads
        written = memory.per_write * min(1.0, self.kv_heads * self.head_dim / WRITE_VALUES)
        moved: Number = tokens * (per_token * self._cold(tokens) + written)
        return moved

    def _cold(self, tokens: Number) -> Number | float:
        """Share of the times per token that is not saved by L2."""
        memory = self.memory
        if memory.warm == 1.0 or not memory.warm_bytes:
            return 1.0
        touched = tokens * (self.head_dim * (FOOTPRINT[0] * self.heads + FOOTPRINT[1] * self.kv_heads))
        past = touched / memory.warm_bytes - 1.0
        missed = np.minimum(1.0, np.maximum(0.0, past)) if isinstance(past, np.ndarray) else min(1.0, max(0.0, past))
        cold: Number = memory.warm + (1.0 - memory.warm) * missed
        return cold

    @cached_property
    def _table(self) -> Residual | None:
        """The table at this rank's heads, over what launches differ in."""
        if self.residual is None:
            return None
        own = {"heads": float(self.heads), "group": self.heads / self.kv_heads}
        return self.residual.fixed(**{name: at for name, at in own.items() if name in self.residual.names})

    def _ratio(self, table: Residual, tokens: Number, context: Number) -> Number:
        where = {"tokens": tokens * self.heads / BASE_HEADS, "context": context}
        return table.at(*[where[name] for name in table.names])


def prefill_flops(tokens: Number, prefix: Number, heads: int, head_dim: int) -> Number:
    """FLOP of causal attention, S tokens after P cached, one layer: 4 * heads * head_dim * (S*P + S*S/2)."""
    return 4 * heads * head_dim * (tokens * prefix + tokens * tokens / 2)
