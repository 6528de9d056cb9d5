"""Does a policy within a sequence keep its contract?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from hw_profiles.errors import InputError
from hw_profiles.lines import Line, upto
from policies.checks.error import Watch
from policies.checks.plan import check_plan
from policies.sequence.plan import FULL, Form, LayerPlan, LayerView, SequencePolicy

FAMILY = "sequence"
STARTS = (FULL, FULL, LayerPlan(form=Form(0.5, 0.5)), LayerPlan(kept=upto(512), attended=upto(512)))
"""Plans that policies before it may have made: none, a format of 8 bits, a budget."""


@dataclass(frozen=True)
class Known:
    """Importance (policies.sequence.plan.Importance) whose first 1,000 tokens matter, all alike."""

    name: str = "checked"

    def recalls(self, selected: int, cached: int, page_tokens: int) -> Line:
        return upto(max(0, selected - cached)) * (1 / page_tokens)

    def keys_for(self, mass: float) -> Line:
        return upto(round(1000 * mass))

    def hit_ratio(self, cached_tokens: int, selected_tokens: int, block_tokens: int) -> float:
        return min(1.0, cached_tokens / max(1, selected_tokens))

    def coverage(self, kept: float, context: float) -> float:
        return min(1.0, kept / min(1000.0, max(1.0, context)))


def check_sequence(factory: Callable[[], SequencePolicy], *, seed: int, operations: int) -> None:
    """Ask a policy for plans of layers of models of many shapes, after what other policies may have planned.

    Checked: `plan` returns a LayerPlan whose amounts are lines of 0 or more at every length, with moves and works that
    there are; it raises nothing but InputError, which says that it cannot be combined; asked twice, and of two policies
    built alike, the answer is the same. Raises ContractError.
    """
    source = random.Random(seed)
    first, twin = factory(), factory()
    watch = Watch(FAMILY, first, twin)
    for operation in range(operations):
        watch.operation = operation
        layer, before = _layer(source), source.choice(STARTS)
        about = f"layer {layer.index} of {layer.layers}"
        plans = [_plan(watch, policy, layer, before, about) for policy in (first, twin, first)]
        if not plans[0] == plans[1] == plans[2]:
            watch.fail("plan() does not follow from its arguments alone", about)


def _plan(watch: Watch, policy: SequencePolicy, layer: LayerView, before: LayerPlan, about: str) -> object:
    try:
        plan = policy.plan(layer, before)
    except InputError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a policy raises is its mistake
        watch.fail(f"plan() raised {type(error).__name__}: {error}", about)
    try:
        check_plan(plan, "plan()", layer)
    except InputError as error:
        watch.fail(str(error), about)
    return plan


def _layer(source: random.Random) -> LayerView:
    layers, head_dim = source.choice((2, 16, 32, 80)), source.choice((64, 128))
    kv_heads = source.choice((1, 2, 8))
    heads, latent = kv_heads * source.choice((1, 4)), source.random() < 0.15
    width = 576 if latent else 2 * kv_heads * head_dim
    return LayerView(
        index=source.randrange(layers),
        layers=layers,
        hidden=heads * head_dim,
        heads=heads,
        kv_heads=1 if latent else kv_heads,
        head_dim=head_dim,
        token_bytes=2.0 * width,
        element_bytes=2.0,
        latent=latent,
        window=source.choice((None, None, None, 4096)),
        max_context=source.choice((4096, 131_072)),
        max_seqs=source.choice((1, 64)),
        importance=Known(),
        weight_bytes=4e8,
        ffn_width=source.choice((0, 14_336)),
        longest=source.choice((None, 3000, 100_000)),
    )
