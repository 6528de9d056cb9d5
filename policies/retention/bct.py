"""Bounded-Cache Transformer: so many slots per layer, rewritten as the text goes on, whatever its length."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, constant, through
from policies.options import number, whole
from policies.retention.budget import applies, keeping
from policies.sequence.plan import LayerPlan, LayerView, SequencePolicy, Work
from policies.sequence.shapes import whole_share

SOURCE = "arXiv 2411.15785"


class BoundedCache(SequencePolicy):
    """A trained cache of `capacity` slots per layer: memory and time per token do not grow with the context.

    Every step reads the slots in use and rewrites the share `written` of them by gates (read and written once more), so
    a step moves up to 3 x capacity tokens' worth of KV. A prompt goes through in chunks, one after the other: a token
    attends the slots and what of its chunk is before it, and each chunk rewrites the slots. The slots are taken when a
    sequence starts. A capacity that holds the longest sequence is full KV.

    capacity  slots, in tokens' worth of KV
    written   share of the slots that a step (or a chunk of a prompt) rewrites
    chunk     tokens of a prompt that go through together; by default as many as there are slots

    Source: Z. Yi et al., "A method for building large language models with predefined KV cache capacity"
    (arXiv 2411.15785), from its abstract: it has neither times nor how much of the cache is rewritten, so all of it is
    assumed to be.
    """

    assumptions = (
        "bct: every step rewrites the slots that its option `written` says; the paper does not say how many",
    )

    def __init__(self, *, capacity: int = 4096, written: float = 1.0, chunk: int | None = None) -> None:
        self._capacity = whole("capacity", capacity, 1, 1 << 30)
        self._written = number("written", written, 0, 1)
        self._chunk = self._capacity if chunk is None else whole("chunk", chunk, 1, 1 << 30)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan: slots."""
        slots = self._capacity
        if not applies(layer, slots):
            return before
        if before.kept != CONTEXT or before.attended != CONTEXT:
            raise InputError("bct writes all tokens into its slots, and another policy has dropped some of them")
        plan = keeping(before, CONTEXT.capped(slots), CONTEXT.capped(slots))
        stored = layer.token_bytes * whole_share(before)
        rewritten = 2.0 * self._written * stored
        pairs = through(((0, 0.0), (slots, slots * slots / 2)), slots + self._chunk / 2)
        width = layer.token_bytes / layer.element_bytes if layer.latent else layer.head_dim
        attend = Work(
            "chunks attend slots", CONTEXT * (slots / self._chunk * stored), pairs * (4.0 * layer.heads * width),
            source=SOURCE,
        )  # fmt: skip
        gates = Work("rewrite slots", plan.attended * rewritten, launches=2, source=SOURCE)
        gates_of_prompt = Work("rewrite slots", CONTEXT * (slots / self._chunk * rewritten), launches=2, source=SOURCE)
        room = plan.form.of(constant(slots)) - plan.form.of(plan.kept)
        return replace(
            plan,
            extra=plan.extra + room * layer.token_bytes,
            kept_in_prefill=plan.kept,
            works=(*plan.works, gates),
            prompt_works=(*plan.prompt_works, attend, gates_of_prompt),
            prefill_flops=before.prefill_flops - 1.0,  # of scores that another policy wants written
        )
