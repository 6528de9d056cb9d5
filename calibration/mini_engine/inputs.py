"""What a step is told: tokens, positions, slots, page tables. Written on the host, handed over in one go.

On a GPU they are read from pinned memory by a kernel: a copy engine would make them wait behind the pages it copies.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.mini_engine.layer import Chunk
from calibration.mini_engine.model import DeviceModel
from calibration.mini_engine.sequence import Sequence, StepPlan
from calibration.suite.lab import Lab
from traces.mooncake import BLOCK_TOKENS

Numbers = NDArray[np.int64]
_ALIGNED_WORDS = 16
"""Each tensor starts at a multiple of 128 bytes, and page tables have rows of whole 16 bytes: kernels that are compiled
for aligned pointers are not compiled again."""
_TABLE_STEP = 4


class Inputs:
    """Tensors that stay where they are: a step's graph has their addresses inside.

    tokens, positions, slots, rows: int64 [tokens]; lengths: int32 [sequences]; table: int32 [sequences, pages].
    """

    def __init__(self, lab: Lab, tokens: int, sequences: int, pages: int) -> None:
        self._lab = lab
        self.count = tokens
        pages = math.ceil(pages / _TABLE_STEP) * _TABLE_STEP
        self._shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            **dict.fromkeys(("tokens", "positions", "slots", "rows"), (torch.int64, (tokens,))),
            "lengths": (torch.int32, (sequences,)),
            "table": (torch.int32, (sequences, pages)),
        }
        words = sum(_words(*shape) for shape in self._shapes.values())
        self._device = torch.zeros(1, words, dtype=torch.int64, device=lab.device)
        # on the CPU there is nothing to hand over
        self._host = self._device if lab.cpu else torch.zeros(1, words, dtype=torch.int64, pin_memory=True)
        self._views, self._written = _split(self._device[0], self._shapes), _split(self._host[0], self._shapes)
        self._written["rows"].copy_(torch.arange(tokens))
        self._page = torch.zeros(1, dtype=torch.int32, device=lab.device)
        self.push()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._views[name]

    def fill(self, **values: Numbers | list[int] | list[list[int]]) -> None:
        """Write values to the fronts of the tensors, and hand everything to the device."""
        for name, new in values.items():
            target = self._written[name]
            source = torch.as_tensor(new, dtype=target.dtype)
            if source.dim() == 2:
                target[: source.shape[0], : source.shape[1]].copy_(source)
            else:
                target[: len(new)].copy_(source)
        self.push()

    def push(self) -> None:
        """Hand everything to the device."""
        if not self._lab.cpu:
            from calibration.kernels import pages

            pages.by_page(self._host, self._device, self._page, self._page, programs=1)


def _words(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    nbytes: int = math.prod(shape) * dtype.itemsize
    return math.ceil(nbytes / 8 / _ALIGNED_WORDS) * _ALIGNED_WORDS


def _split(flat: torch.Tensor, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    views, start = {}, 0
    for name, (dtype, shape) in shapes.items():
        end = start + _words(dtype, shape)
        views[name] = flat[start:end].view(dtype)[: math.prod(shape)].view(shape)
        start = end
    return views


def fill_decodes(model: DeviceModel, inputs: Inputs, decodes: tuple[Sequence, ...]) -> None:
    """Inputs of a step that only decodes."""
    spans = [(sequence, sequence.computed - 1, sequence.computed) for sequence in decodes]
    inputs.fill(**_places(model, spans), **_tables(model, list(decodes)))


def fill_mixed(model: DeviceModel, inputs: Inputs, plan: StepPlan) -> tuple[int, tuple[Chunk, ...]]:
    """Inputs of a step with prompts; its tokens and its chunks."""
    spans = [(sequence, sequence.computed - 1, sequence.computed) for sequence in plan.decodes]
    end = len(spans)
    rows = list(range(end))
    chunks: list[Chunk] = []
    for chunk in plan.chunks:
        spans.append((chunk.sequence, chunk.start, chunk.start + chunk.tokens))
        first, end = end, end + chunk.tokens
        chunks.append(Chunk(first, end, len(plan.decodes) + len(chunks), chunk.start))
        if not chunk.sequence.prompt_left:
            rows.append(end - 1)
    everyone = [*plan.decodes, *(chunk.sequence for chunk in plan.chunks)]
    inputs.fill(**_places(model, spans), **_tables(model, everyone), rows=rows or [0])
    return end, tuple(chunks)


def tokens_of(sequence: Sequence, positions: Numbers, vocabulary: int) -> Numbers:
    """The tokens at positions of a request: any numbers, the same in every variant. Shared prefixes share theirs."""
    sources = np.array([*sequence.request.hash_ids, -1 - sequence.request.index], dtype=np.int64)
    blocks = np.minimum(positions // BLOCK_TOKENS, len(sources) - 1)
    return (sources[blocks] * 7919 + positions * 104729) % vocabulary


def _places(model: DeviceModel, spans: list[tuple[Sequence, int, int]]) -> dict[str, Numbers]:
    """Of all tokens of spans (sequence, first position, end): what they are, and where they and their KV are."""
    page, sides = model.shape.layer.page, 2 * model.shape.layers
    ranges = [np.arange(first, end) for _, first, end in spans]
    held = [np.array(sequence.pages, dtype=np.int64) for sequence, _, _ in spans]
    tokens = [tokens_of(span[0], at, model.shape.vocabulary) for span, at in zip(spans, ranges, strict=True)]
    slots = [pages[at // page] * sides * page + at % page for pages, at in zip(held, ranges, strict=True)]
    named = {"tokens": tokens, "positions": ranges, "slots": slots}
    return {name: np.concatenate(parts) for name, parts in named.items()}


def _tables(model: DeviceModel, sequences: list[Sequence]) -> dict[str, list[int] | list[list[int]]]:
    tables = [model.places(sequence.pages) for sequence in sequences]
    width = max(map(len, tables))
    padded = [row + [0] * (width - len(row)) for row in tables]
    return {"lengths": [sequence.computed for sequence in sequences], "table": padded}
