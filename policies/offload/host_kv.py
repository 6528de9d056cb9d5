"""KV of running sequences in host memory, loaded layer by layer."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant
from policies.options import number, rate, switch
from policies.sequence.plan import LayerPlan, LayerView, Move, SequencePolicy, Via
from policies.sequence.shapes import as_prompt_grows, context_of


def offloaded(
    name: str,
    layer: LayerView,
    before: LayerPlan,
    share: float,
    *,
    overlap: bool,
    via: Via = "dma",
    limit: float | None = None,
    buffers: float,
    source: str,
) -> LayerPlan:
    """A plan whose KV is to a `share` in host memory and is loaded for each step, whole.

    overlap   a layer's KV comes while the layer before computes; otherwise the layer waits for all of it
    via, limit  how it comes, and at which bytes/s at most
    buffers   layers whose KV is in HBM at a time

    Raises InputError where a step does not read all that is kept, or where KV is in host memory already.
    """
    tokens = context_of(layer) if before.kept == CONTEXT else before.kept
    if before.attended not in (before.kept, tokens) or not before.host.zero:
        raise InputError(
            f"{name} loads all KV of a layer whatever the step selects; the systems that load what they select are "
            "policies of selection (infinigen, pqcache, arkvale)"
        )
    held = before.form.of(tokens) * (share * layer.token_bytes)
    new = before.form.of(Line(slope=1.0)).slope * share * layer.token_bytes
    prompt = before.form.of(as_prompt_grows(tokens)) * (share * layer.token_bytes)
    loads = Move("h2d", held, constant(2), "ahead" if overlap else "critical", via, limit, source=source)
    stores = Move("d2h", constant(new), constant(2), "async" if overlap else "critical", via, limit, source=source)
    spill = Move("d2h", prompt, Line(), "async", via, limit, source=source)
    return replace(
        before.plus(moves=(loads, stores), extra=held * (buffers / layer.layers)),
        kept=tokens * (1.0 - share),
        host=held,
        prompt_moves=(*before.prompt_moves, spill),
        # what is being computed and stored takes the buffers
        kept_in_prefill=context_of(layer) * (1.0 - share),
    )


class HostKV(SequencePolicy):
    """All KV in host memory; each layer's comes over the link for every step, while the layer before computes.

    Per sequence and layer a step loads all KV that is kept (2 copies: keys and values) and stores that of the new
    token. HBM holds two layers' worth. A prompt is computed in one piece, its KV stored layer by layer beside.
    Retention and formats come before it: what they keep, as they store it, is what crosses the link.

    share    of the KV that is in host memory
    overlap  false: a layer waits for its own KV, HBM holds one layer's
    rate     bytes/s at most, for a link slower than the profile's

    Source: FlexGen (ICML 2023, arXiv 2303.06865), section 3: KV by layers on CPU; the generic form of what its
    percentages ask for.
    """

    assumptions = ("host_kv: a prompt is computed in one piece, so nothing of it is loaded back meanwhile",)

    def __init__(self, *, share: float = 1.0, overlap: bool = True, rate: float | str | None = None) -> None:
        self.share = number("share", share, 0.0, 1.0, above=True)
        self.overlap = switch("overlap", overlap)
        self.rate = _rate(rate)

    def plan(self, layer: LayerView, before: LayerPlan) -> LayerPlan:
        """The layer's plan."""
        buffers = 2.0 if self.overlap else 1.0
        return offloaded(
            "host_kv",
            layer,
            before,
            self.share,
            overlap=self.overlap,
            limit=self.rate,
            buffers=buffers,
            source="FlexGen (ICML 2023), section 3",
        )


def _rate(value: float | str | None) -> float | None:
    return None if value is None else rate("rate", value)
