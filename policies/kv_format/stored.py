"""What the formats share: bytes of a vector, how formats follow each other, what cannot be combined."""

from __future__ import annotations

from dataclasses import replace

from hw_profiles.errors import InputError
from hw_profiles.formats import Format
from hw_profiles.lines import CONTEXT, constant
from policies.options import number
from policies.sequence.plan import Form, LayerPlan, LayerView, Work

FUSED = (
    "fused attention over packed KV reaches the bandwidth of the plain kernel, unless efficiency says otherwise (up to "
    "4.8 times fp16's speed was measured on an A100, 7.5 times on an RTX 4090: BitDecoding, arXiv 2503.18773)"
)
"""What `efficiency` 1 assumes, for the report."""
UNPACKED = 2.0
"""Plain tokens moved per attended token where packed ones are unpacked first: written, then read by plain attention."""


def vector_share(layer: LayerView, number: Format) -> float:
    """Bytes of a token's keys (or values) of one head, scales included, as a share of the engine's own format.

    A latent (MLA) is one vector.
    """
    values = round(layer.token_bytes / layer.element_bytes) if layer.latent else layer.head_dim
    return number.matrix_bytes(1, values) / (values * layer.element_bytes)


def quantised(
    layer: LayerView,
    before: LayerPlan,
    name: str,
    *,
    key: float,
    value: float,
    key_full: int = 0,
    value_full: int = 0,
    beside: float = 0.0,
    efficiency: float = 1.0,
) -> Form:
    """The form of `before` with its keys and values stored in these shares of what they took.

    efficiency: bandwidth of the attention kernel that reads this, as a share of that of the plain one.
    Raises InputError where keys and values are quantised already, or would not become smaller.
    """
    form = before.form
    if form.value != 1.0 or form.value_full:
        raise InputError(f"{name} cannot follow another number format: keys and values are quantised once")
    if key > 1 or value > 1 or key == value == 1:
        bits = 8 * layer.element_bytes
        raise InputError(f"{name} stores no less than the engine's own KV format of {bits:g} bits (engine.kv_dtype)")
    return replace(
        form,
        key=form.key * key,
        value=form.value * value,
        key_full=max(form.key_full, key_full),
        value_full=max(form.value_full, value_full),
        beside=form.beside + beside,
        rate=form.rate * efficiency,
    )


def as_it_goes(before: LayerPlan, form: Form) -> LayerPlan:
    """With this form, which a prompt's tokens have as soon as a layer has computed them."""
    in_prefill = CONTEXT if before.kept_in_prefill is None else before.kept_in_prefill
    return replace(before, form=form, kept_in_prefill=in_prefill)


def kernel_share(value: float) -> float:
    """The option `efficiency`: above 0, at most 1."""
    return number("efficiency", value, 0, 1, above=True)


def needs_heads(layer: LayerView, name: str, why: str) -> None:
    """Refuse latents (MLA), which all heads share."""
    if layer.latent:
        raise InputError(f"{name} cannot be used with latent attention (MLA): {why}")


def packing(layer: LayerView, plan: LayerPlan, share: float, launches: int, source: str) -> LayerPlan:
    """With kernels that read new tokens' keys and values and write them packed, in decode steps and of prompts."""
    each = layer.token_bytes * (1.0 + share)
    step = Work("quantise", constant(each), launches=launches, source=source)
    prompt = replace(step, nbytes=CONTEXT * each)
    return replace(plan, works=(*plan.works, step), prompt_works=(*plan.prompt_works, prompt))
