"""A request under way, and what one step does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from policies.base import Block
from traces.request import Request


@dataclass
class Sequence:
    """A request under way. computed: tokens whose KV is there or is made in the step that is scheduled."""

    request: Request
    queued: int
    pages: list[int] = field(default_factory=list)
    held: list[Block] = field(default_factory=list)
    filled: list[Block] = field(default_factory=list)
    owned: set[int] = field(default_factory=set)
    """Places in `pages` that blocks own; the rest is the sequence's own."""
    computed: int = 0
    published: int = 0
    pending: int = 0
    generated: int = 0
    hit_tokens: dict[str, int] = field(default_factory=dict)
    first_token_s: float = -1.0
    finish_s: float = -1.0

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt that have not been computed."""
        return max(0, self.request.input_tokens - self.computed)

    def __lt__(self, other: Sequence) -> bool:
        return self.queued < other.queued


class ChunkPlan(NamedTuple):
    """New tokens of a prompt in a step: `tokens` after `start` that are there."""

    sequence: Sequence
    start: int
    tokens: int


@dataclass(frozen=True)
class StepPlan:
    """One step: sequences that decode one token, and chunks of prompts."""

    decodes: tuple[Sequence, ...]
    chunks: tuple[ChunkPlan, ...]

    @property
    def context(self) -> int:
        """Tokens that the decoding sequences attend, the new ones included."""
        return sum(sequence.computed for sequence in self.decodes)

    @property
    def rows(self) -> int:
        """Tokens that are sampled: one per decoding sequence and per prompt that is completed."""
        return len(self.decodes) + sum(not chunk.sequence.prompt_left for chunk in self.chunks)
