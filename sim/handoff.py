"""One request on its way from the instance that computes its prompt to the one that decodes it."""

from __future__ import annotations

import math

from sim.engine.sequence import Sequence
from traces.request import Request

COLUMNS = {
    "index": "int64",
    "target": "int16",
    "chosen_s": "float64",
    "placed_s": "float64",
    "start_s": "float64",
    "landed_s": "float64",
    "joined_s": "float64",
    "second_s": "float64",
    "bytes": "int64",
    "reused": "int64",
}
"""Attributes of a hand-over that are kept when the request has ended."""

HISTORY = (
    *("admit_s", "load_done_s", "load_level", "chunk_s", "first_token_s", "fetched_s", "entered_s"),
    *("hit_tokens", "prefilled", "recomputed", "preemptions", "resumed"),
)
"""Attributes of a sequence that its heir takes over."""


class Handoff:
    """A request between two instances; times in seconds, NaN for what has not come yet.

    prompt    what the prefill instance computes and holds
    heir      what the decode instance has memory for, and decodes
    target    the decode instance
    reused    tokens that it had cached; the others cross the link
    chosen_s  it was chosen, and asked for memory
    placed_s  it has memory
    start_s   the first bytes were sent
    landed_s  the last ones have arrived
    joined_s  its first step was decided
    second_s  it had its second token, the first one there
    complete  the prompt is computed
    held      the decode instance has memory for it, though maybe not yet free of what was evicted
    bytes     that were sent
    flying    transfers that have not arrived
    """

    __slots__ = (
        "_group",
        "_groups",
        "_sent_tokens",
        "_tokens",
        "_upto",
        "bytes",
        "chosen_s",
        "complete",
        "flying",
        "heir",
        "held",
        "joined_s",
        "landed_s",
        "placed_s",
        "prompt",
        "request",
        "reused",
        "second_s",
        "start_s",
        "target",
    )

    def __init__(self, prompt: Sequence, request: Request) -> None:
        self.prompt = prompt
        self.request = request
        self.heir: Sequence | None = None
        self.target = -1
        self.reused = self.bytes = self.flying = 0
        self.complete = self.held = False
        self.chosen_s = self.placed_s = self.start_s = math.nan
        self.landed_s = self.joined_s = self.second_s = math.nan
        self._tokens = self._upto = self._sent_tokens = 0
        """Tokens whose KV is complete; those of which some layers are; those of the first kind that were sent."""
        self._group, self._groups = 0, 1
        """Groups of layers that are complete of the latter, of so many."""

    # ---- what there is to send

    def ready(self, tokens: int) -> None:
        """All layers have the KV of so many tokens of the prompt. What was there before it was preempted counts too."""
        self._tokens = max(self._tokens, tokens)
        self._upto, self._group = self._tokens, 0

    def layers(self, upto: int, group: int, groups: int) -> None:
        """Of the tokens after these, up to `upto`, so many of equal groups of the layers are complete."""
        self._upto, self._group, self._groups = max(upto, self._tokens), group, groups

    @property
    def open(self) -> bool:
        """The decode instance has memory."""
        return not math.isnan(self.placed_s)

    @property
    def all_sent(self) -> bool:
        """Nothing is left to send of a prompt that is computed."""
        return self.complete and self.open and self._sent_tokens == self.prompt.input_tokens

    def take(self, token_bytes: int) -> int:
        """Bytes that can be sent now and have not been, which count as sent from now on."""
        had = self.reused
        whole = max(0, self._tokens - had) * token_bytes
        part = max(0, self._upto - max(self._tokens, had)) * token_bytes * self._group // self._groups
        size = whole + part - self.bytes
        if size > 0:
            self._sent_tokens = self._tokens
            self.bytes += size
        return max(0, size)

    # ---- the end of it

    def bequeath(self) -> None:
        """What happened to the request so far is what happened to its heir."""
        prompt, heir = self.prompt, self.heir
        assert heir is not None
        for name in HISTORY:
            setattr(heir, name, getattr(prompt, name))
        prompt.output_tokens = heir.output_tokens

    def end(self) -> None:
        """The request has its last token, where it was sent to as well."""
        prompt, heir = self.prompt, self.heir
        assert heir is not None
        prompt.finish_s, prompt.status = heir.finish_s, heir.status
        heir.replica = prompt.replica

    def row(self) -> tuple[float, ...]:
        """Its row in the table of hand-overs that have ended."""
        return (self.prompt.index, *[getattr(self, name) for name in list(COLUMNS)[1:]])
