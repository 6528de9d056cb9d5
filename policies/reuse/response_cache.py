"""Answers of earlier requests, for prompts that come again word for word."""

from __future__ import annotations

from collections import OrderedDict

from policies.base import RequestView
from policies.options import nbytes, seconds
from policies.reuse.base import AnsweredView, ResponseCache

TOKEN_BYTES = 4
"""Text of a token, bytes: four characters, the usual estimate for English."""


class ExactResponseCache(ResponseCache):
    """Keeps what was asked and answered, and finds a prompt that is the same to the last token.

    capacity   bytes for instructions and answers; the ones used longest ago make room
    lookup     what a lookup takes

    A prompt is the same if it is as long and its last block has the same chained hash; prompts of a trace without
    hashes are never the same. That an answer may be given twice is the user's to decide: nothing here looks at
    sampling.

    Source: exact-match caches of gateways (GPTCache, LiteLLM), LRU as they have it; the traditional cache that
    InstCache compares itself with (arXiv 2411.13820).

    Complexity: O(1).
    """

    def __init__(self, *, capacity: str | int = "1 GB", lookup: float | str = "1 us") -> None:
        self.capacity = nbytes("capacity", capacity)
        self.lookup_s = seconds("lookup", lookup)
        self.used_bytes = 0
        self._held: OrderedDict[tuple[int, int], int] = OrderedDict()

    @property
    def entries(self) -> int:  # type: ignore[override]
        """Instructions that it holds."""
        return len(self._held)

    def lookup(self, request: RequestView) -> bool:
        name = _name(request)
        if name is None or name not in self._held:
            return False
        self._held.move_to_end(name)
        return True

    def answered(self, request: AnsweredView) -> None:
        name = _name(request)
        taken = TOKEN_BYTES * (request.input_tokens + request.output_tokens)
        if name is None or name in self._held or taken > self.capacity:
            return
        self._held[name] = taken
        self.used_bytes += taken
        while self.used_bytes > self.capacity:
            self.used_bytes -= self._held.popitem(last=False)[1]


def _name(request: RequestView) -> tuple[int, int] | None:
    """What is equal for equal prompts; None where the trace does not say."""
    keys = request.keys
    return (keys[-1], request.input_tokens) if keys else None
