"""The memory of a sequence whose KV is not simply one block per so many tokens: plans within a sequence drop tokens or
store them differently (`policies.sequence.plan`), and some frameworks reserve a row for its whole length
(`sim.cost.framework`).

Amounts are in tokens' worth of the engine's own KV, counted in millionths of one, as whole numbers: so the blocks of
many steps are exactly the sum of those of each.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, NOTHING, Line
from sim.invariants import ensure

SCALE = 1 << 20
"""Units of a token's worth of KV."""


@dataclass(frozen=True)
class WholePrompts:
    """Memory of prompts that run whole, in tokens' worth of KV.

    kept         what is kept of a prompt when it is complete
    layers       layers run one after the other, and each gives back at once what it does not keep: of the rest of a
                 prompt only one layer's part is there at a time
    activations  per token of the prompt, at the widest moment of an MLP or of the output head
    attention    per token of the prompt, while a layer attends
    scores       then, per pair of tokens of the prompt: scores of attention that is not fused
    reserved     the cache is there for the whole length of the sequence before its prompt runs
    """

    kept: Line
    layers: int
    activations: float
    attention: float = 0.0
    scores: float = 0.0
    reserved: bool = False


@dataclass(frozen=True)
class Footprint:
    """What one sequence holds, in tokens' worth of KV (bytes over the bytes of a token in the engine's blocks), with
    KV of n tokens and a prompt of P.

    decoding     after its prompt
    prefilling   while its prompt is computed (n <= P); what is not kept then is given back when the prompt is complete.
                 After a preemption the output is computed again like a prompt, and takes what it took when decoded
    host         bytes of host memory, all GPUs of the replica together
    at_once      all that it will ever need is taken when it starts, and held until it ends: contiguous rows, static
                 batches
    slot_tokens  with `at_once`: every sequence takes a row of as many tokens, whatever its own length
    whole        with `at_once`: prompts run whole, and bring their activations
    """

    decoding: Line = CONTEXT
    prefilling: Line = CONTEXT
    host: Line = NOTHING
    at_once: bool = False
    slot_tokens: int | None = None
    whole: WholePrompts | None = None


class Curve:
    """A line in whole units of memory that never falls as the context grows. Raises InputError for one that does."""

    def __init__(self, line: Line) -> None:
        line = line * float(SCALE)
        self.limits = [w for w, _ in line.caps if w > 0]
        """Contexts at which the slope changes, ascending."""
        amounts = [a for w, a in line.caps if w > 0]
        self.slopes = [round(line.slope + sum(amounts[i:])) for i in range(len(amounts) + 1)]
        """Units per token before each limit, and after the last."""
        if min(self.slopes) < 0:
            raise InputError(
                "this combination of policies within a sequence cannot be priced: memory falls as it grows"
            )
        self._fixed = line.base + sum(a * w for w, a in line.caps if w <= 0)
        self._prompt, self._prompt_caps = line.prompt, line.prompt_caps

    def units(self, context: int, prompt: int) -> int:
        """The value for one sequence."""
        value = self._fixed + self._prompt * prompt + sum(a * min(prompt, w) for w, a in self._prompt_caps)
        total, start = round(value), 0
        for limit, slope in zip(self.limits, self.slopes, strict=False):
            if context <= limit:
                return total + slope * (context - start)
            total += slope * (limit - start)
            start = limit
        return total + self.slopes[-1] * (context - start)

    def segment(self, context: int) -> int:
        """Place in `slopes` of the growth from `context` to the next token."""
        return bisect_right(self.limits, context)


class PlannedMemory:
    """Blocks of the engine, of `block_tokens` tokens each, and host bytes that sequences of a footprint hold."""

    def __init__(self, footprint: Footprint, block_tokens: int) -> None:
        self.at_once = footprint.at_once
        self.block_units = block_tokens * SCALE
        self.curve = Curve(NOTHING) if footprint.at_once else Curve(footprint.decoding)
        """How a decoding sequence grows."""
        self._decoding = Curve(footprint.decoding)
        self._prefilling = Curve(footprint.prefilling)
        self._host = footprint.host
        self._slot = footprint.slot_tokens
        self._whole = footprint.whole
        self._kept = Curve(footprint.whole.kept if footprint.whole else NOTHING)

    def prompt_blocks(self, prompt: int, computed: int) -> int:
        """Of a sequence with KV of `computed` tokens, the last of which come with the step that computes its prompt.

        At the end of the prompt no less than what it holds from then on.
        """
        units = self._prefilling.units(min(computed, prompt), prompt)
        if computed >= prompt:
            units = max(units, self._decoding.units(computed, prompt))
        return -(-max(0, units) // self.block_units)

    def decode_blocks(self, prompt: int, context: int) -> int:
        """Of a decoding sequence with KV of `context` tokens."""
        units = self._decoding.units(context, prompt)
        ensure(units >= 0, "a plan's sequence takes less memory than none")
        return -(-units // self.block_units)

    def whole_blocks(self, prompt: int, final: int) -> int:
        """The most that a sequence holds before it has KV of more than `final` tokens."""
        final = max(prompt, final if self._slot is None else self._slot)
        if self._whole is None:
            return max(self.prompt_blocks(prompt, prompt), self.decode_blocks(prompt, final))
        kept = self._decoding.units(final, prompt)
        return -(-max(kept, self._prompt_units(self._whole, prompt, kept)) // self.block_units)

    def _prompt_units(self, whole: WholePrompts, prompt: int, final: int) -> int:
        """What a sequence holds while its prompt runs whole; `final`: what it keeps at its full length."""
        passing = prompt / whole.layers
        if not whole.reserved:
            by_layer = self._kept.units(prompt, prompt) + round(passing * SCALE)
            final, passing = min(self._prefilling.units(prompt, prompt), by_layer), 0.0
        widest = max(whole.activations, whole.attention + whole.scores * prompt) * prompt
        return final + round((passing + widest) * SCALE)

    def host_bytes(self, prompt: int, final: int) -> float:
        """The most host memory of such a sequence, which grows with its context."""
        return self._host.at(final, prompt)


class HostMemory:
    """Host memory for the KV of running sequences, in bytes; each takes what it needs at its final length when it is
    admitted, as from a pool that is allocated up front. limit: None where nobody says how much there is."""

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.used = self.peak = 0.0
        self._held: dict[int, float] = {}

    def fits(self, nbytes: float) -> bool:
        """True if there is room for `nbytes` more."""
        return self.limit is None or self.used + nbytes <= self.limit

    def take(self, index: int, nbytes: float) -> None:
        """Request `index` is admitted."""
        if nbytes:
            self._held[index] = nbytes
            self._recount()
            self.peak = max(self.peak, self.used)

    def give_back(self, index: int) -> None:
        """The request has ended, or gave way."""
        if self._held.pop(index, None) is not None:
            self._recount()

    def _recount(self) -> None:
        self.used = sum(self._held.values())
        ensure(self.limit is None or self.used <= self.limit, "more KV in host memory than there is room for")
