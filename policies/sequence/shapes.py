"""Lines and checks that several policies within a sequence need."""

from __future__ import annotations

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, upto
from policies.sequence.plan import LayerPlan, LayerView

GATHER_RATE = 30e9
"""Bytes/s at which host threads collect scattered rows of KV into a pinned buffer. Estimate: six channels of DDR4-2666
move 128 GB/s (the Xeon Gold 6136 of InfiniGen, 6248 and 6330 alike or better); each byte is read once and its line in
the buffer is read and written, so a third of that, of which rows of 256 bytes reach about 70 %."""


def context_of(layer: LayerView) -> Line:
    """Tokens that the layer can attend to: the context, or the newest ones of a sliding window."""
    return CONTEXT if layer.window is None else upto(layer.window)


def longest(layer: LayerView) -> int:
    """The most tokens that the layer can attend to in this run."""
    most = layer.longest_sequence
    return most if layer.window is None else min(layer.window, most)


def above(line: Line, context: int, width: int) -> Line:
    """A constant that applies to contexts longer than `context` alone, reached over the next `width` tokens.

    Lines that already depend on the context are returned as they are: they say themselves where they begin.
    """
    if line != Line(base=line.base) or not line.base:
        return line
    rise = line.base / width
    return Line(caps=((context, -rise), (context + width, rise))) if context else Line(caps=((width, rise),))


def as_prompt_grows(line: Line) -> Line:
    """What `line` is while the prompt is computed: a line in the tokens computed so far, n = P."""
    return Line(line.base, line.slope + line.prompt, line.caps) + Line(caps=line.prompt_caps)


def whole_share(plan: LayerPlan) -> float:
    """Bytes of a token that has left the newest ones, as a share of a plain one."""
    return (plan.form.key + plan.form.value) / 2


def needs_all_tokens(name: str, layer: LayerView, before: LayerPlan) -> None:
    """Raise InputError unless the policies before keep and read every token."""
    context = context_of(layer)
    if before.kept not in (CONTEXT, context) or before.attended not in (CONTEXT, context):
        raise InputError(
            f"{name} selects among all tokens and finds them again in host memory; what another policy within the "
            "sequence drops or does not read is not among them"
        )
    if not before.host.zero:
        raise InputError(f"{name} places KV in host memory, and so does another policy within the sequence")


def needs_heads(name: str, layer: LayerView) -> None:
    """Raise InputError for a layer without keys per head."""
    if layer.latent:
        raise InputError(f"{name} ranks the keys of each head, and the latent cache of MLA has none")
