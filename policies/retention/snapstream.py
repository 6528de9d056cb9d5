"""SnapStream: sinks, what the prompt's end attended, and a ring of the newest tokens, in one row of fixed size."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, constant
from policies.options import choice, switch, whole
from policies.retention.budget import applies, coverage, gather, keeping, last_queries
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy

SOURCE = "SnapStream (arXiv 2511.03092), section 3"


class SnapStream(SequencePolicy):
    """A row per sequence and layer: `sinks` first tokens, `selected` of the prompt, a ring of the `ring` newest ones.

    What is selected is written once, when the prompt is complete, by the votes of its last `window` queries, as in
    SnapKV; decoding overwrites the ring (the slot of token t is sinks + selected + t mod ring), so shapes never change
    and static graphs apply. A row holds sinks + selected + ring tokens, however long the sequence becomes; with
    `slots: reserved` it takes that memory from the start, as a static graph's rows do, and attention reads its valid
    entries. A prompt is computed over all of its KV, in a buffer of its own, one prompt after the other. With latent
    attention (MLA) one set of tokens serves all heads.

    sinks, selected, ring   tokens of each part; together 32k, a quarter of 128k, as published. How the paper divides
                            them is not in the notes on it: half and half is assumed
    prompt_buffer           HBM for the KV of one prompt of the longest context, beside the rows. false: it is elsewhere
                            (the DDR of an SN40L, or other machines)
    window                  last queries of the prompt, which vote (SnapKV's 32)
    slots                   reserved: whole rows. grown: what a sequence fills

    Source: J. Li et al., "SnapStream" (arXiv 2511.03092), from notes on it. The baseline that it saves over reserves
    rows too (`engine.framework: static_graph`).
    """

    assumptions = ("snapstream: how 32k tokens are divided over sinks, selected and ring is assumed",)

    def __init__(
        self,
        *,
        sinks: int = 4,
        selected: int = 16_380,
        ring: int = 16_384,
        window: int = 32,
        slots: str = "reserved",
        prompt_buffer: bool = True,
    ) -> None:
        self._sinks = whole("sinks", sinks, 0, 1 << 30)
        self._selected = whole("selected", selected, 0, 1 << 30)
        self._ring = whole("ring", ring, 1, 1 << 30)
        self._window = whole("window", window, 1, 1 << 20)
        self._reserved = choice("slots", slots, ("reserved", "grown")) == "reserved"
        self._buffer = switch("prompt_buffer", prompt_buffer)

    @property
    def row(self) -> int:
        """Tokens of a row."""
        return self._sinks + self._selected + self._ring

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan: a row."""
        if not applies(layer, self.row):
            return before
        if before.kept != CONTEXT or before.attended != CONTEXT:
            raise InputError("snapstream keeps part of a whole prompt, and another policy has dropped some of it")
        kept = before.kept.capped(self.row)
        plan = keeping(before, kept, kept)
        row = plan.form.of(constant(self.row)) - plan.form.of(kept)
        extra = plan.extra + row * layer.token_bytes if self._reserved else plan.extra
        vote = last_queries(layer, self._window, SOURCE)
        return replace(
            plan,
            extra=extra,
            kept_in_prefill=kept,
            fixed_extra=plan.fixed_extra + (layer.max_context * layer.token_bytes if self._buffer else 0.0),
            after_prompt=(*plan.after_prompt, vote, gather(layer, plan, 4, SOURCE)),
        )

    def coverage(self, layer: LayerView, context: float, prompt: float) -> float:
        """Share of the attention mass that as many tokens hold at best; the ring is not chosen by it."""
        if not applies(layer, self.row):
            return 1.0
        return coverage(layer, CONTEXT.capped(self.row), context, prompt)
