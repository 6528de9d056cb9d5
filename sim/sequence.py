"""From the policies of a scenario to the plan of a sequence: what each layer keeps, reads, runs and moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from hw_profiles.errors import InputError
from hw_profiles.lines import CONTEXT, NOTHING, Line
from hw_profiles.mlp import MLP
from hw_profiles.models import ModelSpec
from policies.build import build_policy
from policies.checks.plan import plan_of
from policies.sequence.plan import FULL, Importance, LayerPlan, LayerView, SequencePlan, SequencePolicy
from policies.sequence.shapes import as_prompt_grows
from sim.cost.framework import FRAMEWORKS, framework_plan
from sim.coverage import coverages
from sim.idle import untouched, why_idle
from sim.scenario import Scenario
from sim.spec import ScenarioSpec
from sim.spec_base import PolicySpec

SHARED = (
    "Layers that read the KV of another layer attend what policies within a sequence keep and choose for that layer: "
    "the kernels, copies and metadata for it are those of the layer that stores it."
)


@dataclass(frozen=True)
class Planned:
    """A plan, and what it comes to for memory: tokens' worth of the engine's KV, and bytes of the host.

    decoding    what a sequence has in HBM while it decodes; prefilling: while its prompt is computed
    host        bytes of host memory
    fixed       HBM bytes whatever the sequences
    importance  line of the report on what token importance comes from; None if no policy has asked
    covers      by policy that drops tokens: share of the attention mass that it keeps, of (context, prompt)
    idle        policies that leave every layer as it is, with the reason, one line each
    """

    plan: SequencePlan
    decoding: Line
    prefilling: Line
    host: Line
    fixed: float
    importance: Callable[[], str | None] = lambda: None
    covers: tuple[tuple[str, Callable[[float, float], float]], ...] = ()
    idle: tuple[str, ...] = ()


class _Asked:
    """The importance data of a run, read when a policy first asks."""

    def __init__(self, read: Callable[[], Importance]) -> None:
        self._read = read
        self.data: Importance | None = None

    def __getattr__(self, name: str) -> Any:
        if self.data is None:
            self.data = self._read()
        return getattr(self.data, name)


def policies_of(scenario: Scenario) -> Iterator[tuple[str, PolicySpec]]:
    """(family, policy) of everything that plans within a sequence, in the order in which it does."""
    chosen = scenario.spec.policies
    yield from (("kv_format", policy) for policy in chosen.kv_format)
    for family in ("retention", "selection", "sequence_offload", "sequence_prefetch"):
        policy: PolicySpec | None = getattr(chosen, family)
        if policy is not None:
            yield family, policy


def plan_sequence(
    scenario: Scenario, model: ModelSpec, *, hybrid: bool = False, longest: int | None = None
) -> Planned | None:
    """The plan that the scenario's policies make for the model; None if there are none. Raises InputError.

    hybrid: the engine's blocks count layers without a window alone, windows are kept apart (`sim.cost.kv`).
    longest: tokens of the longest sequence of the run, prompt and output; None: as the model allows.
    """
    policies, spec = list(policies_of(scenario)), scenario.spec
    framework = FRAMEWORKS[spec.engine.framework]
    named_data = _importance(scenario) if spec.importance else None  # read here: its mistakes are not a policy's
    if not policies and not framework.plans:
        return None
    if framework.plans and spec.hardware.pp > 1:
        problem = "frameworks that run other kernels than vLLM are not available with pipeline stages in this version"
        raise InputError(problem, path="engine.framework", found=spec.engine.framework)
    _check_banks(model, [f"policies.{family}" for family, _ in policies])
    importance = _Asked(lambda: named_data or _importance(scenario))
    built: list[tuple[str, SequencePolicy]] = []
    names = {f"policies.{family}": named.name for family, named in policies}
    for family, named in policies:
        path = f"policies.{family}"
        policy = build_policy(family, named.model_dump(), base_dir=scenario.base_dir, path=path)
        built.append((path, policy))
    views = [layer_view(model, index, spec, cast("Importance", importance), longest) for index in range(model.layers)]
    layers: list[LayerPlan] = []
    bare: list[LayerPlan] = []
    acted: set[int] = set()
    for index, view in enumerate(views):
        plan = untouched(view)
        for place, (path, policy) in enumerate(built):
            before = plan
            try:
                plan = plan_of(policy, names[path], view, before)
            except InputError as error:
                raise error.at(path=path) from None
            if plan != before:
                acted.add(place)
        if not framework.plans and replace(plan, l2_lookahead=0, attention_share=None) == untouched(view):
            bare.append(replace(FULL, l2_lookahead=plan.l2_lookahead, attention_share=plan.attention_share))
        spec_of_layer = model.specs[model.pattern[index]]
        heads = 0 if spec_of_layer.cadence.skips_prompt or spec_of_layer.cadence.period > 1 else model.heads
        layers.append(framework_plan(framework, plan, spec_of_layer.kv_bytes_per_token, heads))
    if len(bare) == len(layers):  # the engine knows of windows by itself
        layers = bare
    assumed = [line for place in sorted(acted) for line in built[place][1].assumptions]
    idle = [
        f"{path}: {named.name} {why}"
        for place, ((path, policy), (_, named)) in enumerate(zip(built, policies, strict=True))
        if place not in acted and (why := why_idle(policy, views, model.name))
    ]
    if policies and model.kv_sources:
        assumed.append(SHARED)
    plan_of_all = SequencePlan(
        tuple(_reading(layers[source], layers[i]) for i, source in enumerate(model.kv_sources)) or tuple(layers),
        max((policy.weights_on_host for _, policy in built), default=0.0),
        tuple(dict.fromkeys(assumed)),
        max((policy.gpu_batches for _, policy in built), default=1),
    )
    whole = [i for i in range(model.layers) if model.specs[model.pattern[i]].window is None] or [*range(model.layers)]
    covers = coverages([policy for _, policy in built], views[whole[len(whole) // 2]])
    found = measured(plan_of_all, model, whole_prompts=framework.whole_prompts, hybrid=hybrid)
    return replace(found, importance=lambda: _said(importance.data), covers=covers, idle=tuple(idle))


def _reading(source: LayerPlan, own: LayerPlan) -> LayerPlan:
    """The plan of a layer that reads the KV of the layer with the plan `source`; of that layer itself: its own.

    Of its own plan what is not about KV in HBM: copies and kernels for weights, and host threads.
    """
    if own is source:
        return own
    return LayerPlan(
        source.kept,
        source.attended,
        source.form,
        works=tuple(work for work in own.works if work.fixed or not work.host_seconds.zero),
        moves=tuple(replace(move, nbytes=NOTHING, copies=NOTHING) for move in own.moves if move.fixed),
        kept_in_prefill=source.kept_in_prefill,
    )


def _check_banks(model: ModelSpec, paths: list[str]) -> None:
    """Raise InputError for policies in a model that keeps something else than a token's KV."""
    if paths and any(spec.cadence.period > 1 or spec.scratch_bytes for spec in model.specs):
        reason = "not all of its layers keep the KV of every token"
        raise InputError(f"policies within a sequence are not defined for {model.name}: {reason}", path=paths[0])


def _importance(scenario: Scenario) -> Importance:
    from traces.importance.spec import build  # type: ignore[import-not-found,unused-ignore]  # needs numpy tables that few runs ask for

    wanted = scenario.spec.importance or PolicySpec(name="synthetic")
    found: Importance = build(wanted.model_dump(), scenario.base_dir)
    return found


def _said(data: Importance | None) -> str | None:
    """What the report says of the data: where it comes from, and what was asked beyond it."""
    lines = (getattr(data, "about", ""), *getattr(data, "notes", ()))
    return "; ".join(filter(None, lines)) or None


def layer_view(
    model: ModelSpec, index: int, spec: ScenarioSpec, importance: Importance, longest: int | None = None
) -> LayerView:
    """What policies may see of a layer."""
    layer = model.specs[model.pattern[index]]
    return LayerView(
        index=index,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        token_bytes=layer.kv_bytes_per_token or layer.entry_bytes,
        weight_bytes=layer.weight_bytes,
        element_bytes=layer.kv.bits / 8,
        latent=model.attention.startswith("MLA"),
        window=layer.window,
        max_context=model.max_context,
        max_seqs=spec.engine.max_num_seqs,
        importance=importance,
        ffn_width=layer.mlp.intermediate if isinstance(layer.mlp, MLP) else 0,
        longest=longest,
    )


def measured(plan: SequencePlan, model: ModelSpec, *, whole_prompts: bool = False, hybrid: bool = False) -> Planned:
    """What a plan comes to for memory; `hybrid`: layers with a window have theirs apart.

    whole_prompts: prompts are computed in one piece, so a layer packs and drops before the next one has its KV.
    Without, what is dropped when a prompt is complete stays until then, in all layers.
    """
    if plan.plain:
        return Planned(plan, CONTEXT, CONTEXT, NOTHING, 0.0)
    specs = [model.specs[place] for place in model.pattern]
    sizes = [0 if hybrid and spec.window is not None else spec.kv_bytes_per_token for spec in specs]
    whole = sum(sizes)
    decoding = prefilling = host = NOTHING
    for layer, size in zip(plan.layers, sizes, strict=True):
        extra = layer.extra * (1.0 / whole)
        decoding = decoding + layer.form.of(layer.kept) * (size / whole) + extra
        while_computed = layer.kept_in_prefill
        if while_computed is None and whole_prompts:
            while_computed = as_prompt_grows(layer.kept)
        held = CONTEXT if while_computed is None else layer.form.of(while_computed)
        prefilling = prefilling + held * (size / whole) + extra
        host = host + layer.host
    return Planned(plan, decoding, prefilling, host, sum(layer.fixed_extra for layer in plan.layers))
