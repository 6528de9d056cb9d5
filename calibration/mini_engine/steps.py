"""Execute one step on the device: tokens, positions and page tables from a plan, then every layer and the head.

Steps that only decode replay a CUDA graph per batch size; steps with prompts are launched one kernel at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch

from calibration.kernels.kv_cache import Cache
from calibration.mini_engine.inputs import Inputs, fill_decodes, fill_mixed
from calibration.mini_engine.layer import Buffers, Chunk, layer_buffers, run_layer
from calibration.mini_engine.model import DeviceModel
from calibration.mini_engine.sequence import StepPlan

THETA = 500_000.0
"""Base of the rotary angles (Llama 3)."""


class State(NamedTuple):
    """What goes with one set of inputs: each layer's cache, buffers, hidden numbers, words that a prefetch writes."""

    caches: list[Cache]
    buffers: Buffers
    hidden: torch.Tensor
    prefetched: torch.Tensor


class Ready(NamedTuple):
    """A step whose inputs are on the device: tokens in all, sequences that decode (first), chunks, rows to sample."""

    inputs: Inputs
    tokens: int
    decodes: int
    chunks: tuple[Chunk, ...]
    rows: int


class StepRunner:
    """Runs steps of up to `max_tokens` tokens and `max_seqs` sequences of up to `max_pages` pages.

    l2_prefetch: in steps that only decode, each layer first asks L2 for the next layer's keys and values.
    """

    def __init__(
        self, model: DeviceModel, max_seqs: int, max_tokens: int, max_pages: int, *, l2_prefetch: bool = False
    ) -> None:
        self.model = model
        self._lab = lab = model.lab
        self._l2_prefetch = l2_prefetch
        # a decode batch of each size has inputs of its own, since its graph has their addresses inside
        self._decode = {batch: Inputs(lab, batch, batch, max_pages) for batch in range(1, max_seqs + 1)}
        self._mixed = Inputs(lab, max_tokens, max_seqs, max_pages)
        self._graphs: dict[int, Any] = {}
        self._states: dict[int, State] = {}
        self._max_tokens = max_tokens
        half = model.shape.layer.head_dim // 2
        self._frequencies = THETA ** (-torch.arange(half, device=lab.device) / half)

    def capture(self) -> None:
        """Warm up every batch size, and record its graph on a GPU."""
        for batch, inputs in self._decode.items():
            inputs.fill(lengths=[1] * batch)
            ready = self.decode_of(batch)
            self._forward(ready)
            if not self._lab.cpu:
                from calibration.suite.bench_memory import graph_of

                self._graphs[batch] = graph_of(self._lab, partial(self._forward, ready), 1)
        self._lab.synchronize()

    def prepare(self, plan: StepPlan) -> Ready:
        """Hand a step's tokens, positions and page tables to the device."""
        if not plan.chunks:
            inputs = self._decode[len(plan.decodes)]
            fill_decodes(self.model, inputs, plan.decodes)
            return Ready(inputs, len(plan.decodes), len(plan.decodes), (), len(plan.decodes))
        tokens, chunks = fill_mixed(self.model, self._mixed, plan)
        return Ready(self._mixed, tokens, len(plan.decodes), chunks, plan.rows)

    def run(self, ready: Ready) -> torch.Tensor:
        """Execute a step; hidden numbers of its tokens [tokens, hidden], valid until the next one."""
        if not ready.chunks and ready.tokens in self._graphs:
            self._graphs[ready.tokens].replay()
            return self._states[id(ready.inputs)].hidden
        return self._forward(ready)

    def begin(self, ready: Ready) -> None:
        """What a step does before its first layer: embeddings, rotary angles, slots."""
        state, inputs, tokens = self._state(ready.inputs), ready.inputs, ready.tokens
        torch.index_select(self.model.embeddings, 0, inputs["tokens"][:tokens], out=state.hidden[:tokens])
        angles = inputs["positions"][:tokens, None] * self._frequencies
        state.buffers.cosine[:tokens].copy_(angles.cos())
        state.buffers.sine[:tokens].copy_(angles.sin())
        state.buffers.slots[:tokens].copy_(inputs["slots"][:tokens])

    def decode_of(self, batch: int) -> Ready:
        """A step of `batch` sequences with whatever was in its inputs last."""
        return Ready(self._decode[batch], batch, batch, (), batch)

    def _forward(self, ready: Ready) -> torch.Tensor:
        self.begin(ready)
        state = self._state(ready.inputs)
        hidden, caches = state.hidden[: ready.tokens], state.caches
        for layer, (weights, cache) in enumerate(zip(self.model.weights, caches, strict=True)):
            if self._l2_prefetch and layer + 1 < len(caches) and not ready.chunks:
                _prefetch(caches[layer + 1], state.prefetched)
            run_layer(hidden, weights, cache, state.buffers, ready.decodes, ready.chunks)
        sampled = hidden[ready.inputs["rows"][: ready.rows]]
        torch.argmax(sampled @ self.model.head.t(), dim=1)
        return hidden

    def _state(self, inputs: Inputs) -> State:
        known = self._states.get(id(inputs))
        if known is None:
            shape, most = self.model.shape, inputs.count
            caches = [self.model.cache(layer, inputs["table"], inputs["lengths"]) for layer in range(shape.layers)]
            hidden = torch.empty(most, shape.layer.hidden, dtype=self._lab.dtype, device=self._lab.device)
            buffers = layer_buffers(self._lab, shape.layer, caches[0], most)
            known = State(caches, buffers, hidden, torch.zeros_like(inputs["table"]).flatten())
            self._states[id(inputs)] = known
        return known


def _prefetch(cache: Cache, prefetched: torch.Tensor) -> None:
    """Ask L2 for keys and values of every page of the table (unused places are those of page 0)."""
    from calibration.kernels import prefetch_l2

    side = cache.keys.codes[0].numel() * cache.keys.codes.element_size()
    data = cache.keys.codes.view(torch.uint8).flatten()
    prefetch_l2.pages(data, cache.table.flatten(), 2 * side, prefetched, unit=side)
