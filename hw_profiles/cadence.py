"""When a layer runs: over which tokens of a prompt, how often, and in which steps of decoding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cadence:
    """How a layer differs from one that runs once over every token.

    passes        times that it runs over the tokens of a prompt (iterative prefill, where it reads keys and values that
                  a layer above it makes)
    period        tokens that it sees as one: it runs once for them and leaves one entry in the cache. Decoding
                  sequences are taken to need it in the same step, one of `period`; times are means over these steps
    skips_prompt  it runs for sampled tokens alone
    rows          rows that it computes for a token of a decoding sequence, a mean
    """

    passes: int = 1
    period: int = 1
    skips_prompt: bool = False
    rows: float = 1.0

    @property
    def plain(self) -> bool:
        """True if the layer runs once over every token."""
        return self == EVERY_TOKEN

    def runs(self, tokens: int, sampled: int, prompt: int) -> tuple[tuple[float, int], ...]:
        """(times, rows) of the layer's kernels in a step of `tokens` tokens, of which `prompt` are of prompts.

        sampled: tokens that the step samples. Passes after the first are over the prompts alone.
        """
        decoding = tokens - prompt
        if self.skips_prompt:
            rows = _whole(max(decoding, sampled) * self.rows)
            return ((1, rows),) if rows else ()
        if self.period > 1:
            entries = -(-prompt // self.period)
            with_decoding = (1 / self.period, _whole(decoding * self.rows) + entries)
            if not entries:
                return (with_decoding,)
            return (with_decoding, (1 - 1 / self.period, entries)) if decoding else ((1, entries),)
        if self.passes > 1 and prompt:
            return (1, tokens), (self.passes - 1, prompt)
        return ((1, tokens),)

    def chunk(self, tokens: int, prefix: int) -> tuple[int, int]:
        """Entries that a prompt's chunk of `tokens` tokens after `prefix` cached ones adds, and those before them."""
        return -(-tokens // self.period), prefix // self.period


EVERY_TOKEN = Cadence()
"""Once over every token."""


def _whole(rows: float) -> int:
    return -int(-rows // 1)
