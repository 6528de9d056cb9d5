"""Policies within a sequence on top of one another: each pair is a plan that adds up, or is refused with a reason."""

from itertools import product
from typing import Any

import pytest

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, Line, constant
from policies.sequence.plan import LayerPlan, SequencePolicy
from policies.tables import KV_FORMAT, RETENTION, SELECTION, SEQUENCE_OFFLOAD, SEQUENCE_PREFETCH
from tests.policies.layer_cases import fold, layer_of

CONTEXTS = (10, 1000, 5000, 32_000)


class Known:
    """Importance data of an even attention."""

    name = "even"

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return constant(1.0)

    def keys_for(self, mass: float) -> Line:
        return CONTEXT * (mass / 10)

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        return 0.5

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, kept / context)


VIEW = layer_of(Known(), kv_heads=8, index=7, max_context=131_072, weight_bytes=4e8, ffn_width=14_336)


def plan(*policies: SequencePolicy) -> LayerPlan:
    return fold(VIEW, *policies)


def adds_up(made: LayerPlan, prompt: int) -> None:
    """Nothing is negative, HBM and host together hold what is attended, and no more is attended than there is."""
    for grown in (0, 500):
        n = prompt + grown
        for line in (made.kept, made.attended, made.extra, made.host, *(m.nbytes for m in made.moves)):
            assert line.at(n, prompt) >= -1e-6
        assert made.attended.at(n, prompt) <= n + 1e-6
        if made.host.zero:
            assert made.attended.at(n, prompt) <= made.kept.at(n, prompt) + 1e-6


def pairs(*families: dict[str, Any]) -> list[tuple[str, ...]]:
    return list(product(*families))


@pytest.mark.parametrize(("form", "later"), pairs(KV_FORMAT, {**SELECTION, **SEQUENCE_OFFLOAD, **SEQUENCE_PREFETCH}))
def test_every_format_goes_with_every_selection_and_offload(form: str, later: str) -> None:
    policy = {**SELECTION, **SEQUENCE_OFFLOAD, **SEQUENCE_PREFETCH}[later]()
    made = plan(KV_FORMAT[form](), policy)
    for prompt in CONTEXTS:
        adds_up(made, prompt)


@pytest.mark.parametrize(("kept", "offload"), pairs(RETENTION, SEQUENCE_OFFLOAD))
def test_every_retention_goes_with_every_offload(kept: str, offload: str) -> None:
    """What retention keeps is what is loaded: no more than without it, and as much as it keeps."""
    first, then = RETENTION[kept](), SEQUENCE_OFFLOAD[offload]()
    made = plan(first, then)
    for prompt in CONTEXTS:
        adds_up(made, prompt)
        held = plan(first).kept.at(prompt, prompt) * VIEW.token_bytes
        assert made.host.at(prompt, prompt) == pytest.approx(held)


@pytest.mark.parametrize(("kept", "selected"), pairs(RETENTION, SELECTION))
def test_retention_with_selection_is_defined_or_refused(kept: str, selected: str) -> None:
    first, then = RETENTION[kept](), SELECTION[selected]()
    if selected != "quest" and plan(first).kept != CONTEXT:
        with pytest.raises(InputError, match=selected):
            plan(first, then)
        return
    made = plan(first, then)
    for prompt in CONTEXTS:
        adds_up(made, prompt)
        assert made.attended.at(prompt, prompt) <= plan(first).attended.at(prompt, prompt) + 1e-6


@pytest.mark.parametrize(("selected", "offload"), pairs(SELECTION, SEQUENCE_OFFLOAD))
def test_selection_with_offload_is_refused(selected: str, offload: str) -> None:
    if selected == "zipvl":  # which drops what it does not select, so that all that is left is loaded
        made = plan(SELECTION[selected](), SEQUENCE_OFFLOAD[offload]())
        for prompt in CONTEXTS:
            adds_up(made, prompt)
            kept = plan(SELECTION[selected]()).kept.at(prompt, prompt)
            assert made.host.at(prompt, prompt) == pytest.approx(kept * VIEW.token_bytes)
        return
    with pytest.raises(InputError, match=offload):
        plan(SELECTION[selected](), SEQUENCE_OFFLOAD[offload]())
