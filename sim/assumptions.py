"""What a run's numbers take for granted, in words, for its summary and its report."""

from __future__ import annotations

from hw_profiles.units import format_bytes
from policies.tables import EVICTION_BOUNDS
from sim.cost.framework import FRAMEWORKS
from sim.cost.memory import HBMBudget
from sim.cost.step import StepCost
from sim.framework_spec import shares_nothing
from sim.inputs import Inputs
from sim.sequence import Planned
from sim.spec import ScenarioSpec

CLAIRVOYANT = (
    "belady is clairvoyant in arrival order: it evicts what the requests that have not been admitted yet need last, in "
    "the order in which they arrive. It bounds block hits of a fixed sequence of accesses (`kvsim cache`); here timing "
    "changes that order and whole prefixes count, so it is something to compare with and promises nothing on latency."
)


SCHEDULING = {
    "vllm": "vLLM v1 scheduling (token budget, chunked prefill, FCFS, preemption by recompute)",
    "sglang": "SGLang's scheduling (prompts first, engine.schedule_policy, retraction; leaves of the radix tree first)",
    "tensorrt_llm": "TensorRT-LLM's in-flight batching (engine.capacity_policy, engine.chunked_context)",
}
SERVED = (
    "Modelled: arrivals, lengths and prefix sharing of the trace; {scheduling}; prefix "
    "caching by chained hashes in full engine blocks; one copy engine per "
    "direction and GPU over shared bandwidths; one copy per contiguous piece of an engine block (engine.kv_layout); "
    "loading of cached prefixes as engine.loading says (by default a request waits for its own, its batch does not)."
)
OUTPUT = (
    "Output tokens are private to their request: they hold HBM, stay cached until evicted, and are neither hit by "
    "another request nor offloaded."
)

POOLS = (
    "Prefill and decode on different replicas: KV crosses a serial link per pair of instances, over what each instance "
    "shares (max-min fair); nothing leaves before the decode instance has memory. Transfers do not slow kernels, "
    "messages take no time beyond the link's latency, and windows that are kept apart from other KV are not sent."
)


def bounds(spec: ScenarioSpec) -> list[str]:
    """Paths of the eviction policies of `spec` that know the future, with their names."""
    tiers = spec.tiers
    named = [(f"tiers.{tier.name}.eviction", tier.eviction.name) for tier in tiers if tier.eviction is not None]
    if len(named) < len(tiers):
        named.append(("policies.eviction", spec.policies.eviction.name))
    return [f"{path}: {name}" for path, name in named if name in EVICTION_BOUNDS]


def assumptions(spec: ScenarioSpec, cost: StepCost, inputs: Inputs) -> list[str]:
    """The assumptions of a run of `spec` with step times from `cost`, one paragraph each."""
    planned, budget, model = inputs.planned, inputs.budget, inputs.model
    ahead = spec.engine.l2_prefetch or (0 if planned is None else planned.plan.l2_lookahead)
    prefetch = f" but for {format_bytes(ahead)} of KV per layer that are prefetched into it" if ahead else ""
    shares = shares_nothing(spec.engine) is None
    return [
        SERVED.format(scheduling=SCHEDULING[spec.engine.kind]) if shares else _framework(spec),
        f"Step time: matrix products, attention (cold in L2{prefetch}), elementwise kernels and launches from the "
        "profile's fitted models. Host time per step is engine.host_time (0 s: asynchronous scheduling hides it).",
        *(f"Model: {note}." for note in model.notes),
        *_estimates(cost),
        *_parallel(spec),
        *([POOLS] if spec.disaggregation is not None else []),
        *_windows(cost, budget),
        *_prefetch(ahead),
        *_within(planned if spec.policies.within else None),
        *_host(inputs),
        *_speculation(inputs),
        *([CLAIRVOYANT] if bounds(spec) else []),
        *([OUTPUT] if shares else []),
        "Copies slow the kernels of their GPU, by bytes moved during a step and the profile's interference factors "
        "(estimates unless the profile says otherwise).",
        f"Not modelled in this version: L2 residency{' (but for that prefetch)' if ahead else ''}, bandwidth that GPUs "
        "of a host share (unless `links:` gives it), tokenisation, client network.",
    ]


def _framework(spec: ScenarioSpec) -> str:
    """How requests are served where they share nothing."""
    engine = spec.engine
    framework = FRAMEWORKS[engine.framework]
    batches = "continuous batching into slots" if framework.slots else "continuous batching"
    if engine.scheduling == "static":
        batches = (
            "static batches, whose rows compute on until the last has ended; answers end with their own last token"
        )
    syncs = f"; the host waits {framework.sync_s * 1e6:.0f} us per layer (an estimate)" if framework.sync_s else ""
    return (
        f"Modelled: arrivals and lengths of the trace; {batches}; engine.framework: {engine.framework}, "
        f"{framework.about}. Requests share nothing, and each takes all memory that it will need when it starts. "
        f"Prompts are not padded to the longest{syncs}."
    )


def _host(inputs: Inputs) -> list[str]:
    """KV in host memory, if a plan keeps some there."""
    footprint = inputs.footprint
    if footprint is None or footprint.host.zero:
        return []
    limit = inputs.host_limit
    room = (
        "as much as it takes (engine.host_kv_memory is not set)"
        if limit is None
        else f"{format_bytes(int(limit))} per replica"
    )
    return [
        f"KV in host memory: there is room for {room}, and a request counts at its final length from its admission."
    ]


def _speculation(inputs: Inputs) -> list[str]:
    """Whose drafts steps verify."""
    speculation = inputs.speculation
    if speculation is None:
        return []
    spec = speculation.spec
    drafter = {
        "draft": f"the model {spec.model}",
        "mtp": "a layer like the model's last, with its embedding and head",
        "ngram": f"n-grams, in {speculation.lookup_s * 1e6:.0f} us of host time per step (an estimate unless given)",
    }[spec.method]
    return [
        f"Speculation: {spec.tokens} tokens drafted per step by {drafter}; how many are right is drawn by place in the "
        "answer (engine.speculation.acceptance), whatever its text. Steps wait for their drafts. Attention reads the "
        "KV of a sequence once for all of its rows, unless their arithmetic takes longer."
    ]


def _within(planned: Planned | None) -> list[str]:
    if planned is None:
        return []
    lines = [
        "Policies within a sequence: bytes, kernels and copies as each of them plans per layer, at their means per "
        "step; copies of a step at the resolution of layers over the GPU's own link. No claim on the quality of text.",
        *planned.plan.assumptions,
    ]
    about = planned.importance()
    return [*lines, f"Token importance: {about}"] if about else lines


def _prefetch(ahead: int) -> list[str]:
    if not ahead:
        return []
    return [
        "Prefetch into L2 (engine.l2_prefetch): the kernels before an attention cover it, HBM time that they do not "
        "need is free, and what exceeds L2 is evicted before its use and read twice. The knee of L2 is fitted; the "
        "gain is a formula of kvsim's own, checked against one publication (arXiv 2504.06319)."
    ]


def _estimates(cost: StepCost) -> list[str]:
    """What stands for kernels that the profile does not have."""
    notes = cost.kernels.estimates
    return [f"Estimates, for want of measurements in the profile: {'; '.join(notes)}."] if notes else []


def _parallel(spec: ScenarioSpec) -> list[str]:
    parallel = spec.hardware.parallel
    if parallel.gpus == 1:
        return []
    stages = (
        " Pipeline stages work on as many balanced micro-batches as there are stages, a step is one round of them."
        if parallel.pp > 1
        else ""
    )
    experts = (
        f" Experts lie on ranks ({parallel.placement.policy}), and layers wait for the rank with the most rows and "
        "touched experts, at their expected maxima."
        if parallel.expert_parallel
        else ""
    )
    return [
        f"A replica is {parallel.gpus} GPUs (tp {parallel.tp}, pp {parallel.pp}) in step: each copies its part of the "
        f"KV over its own link, tiers hold the parts of all.{stages}{experts}"
    ]


def _windows(cost: StepCost, budget: HBMBudget) -> list[str]:
    if not cost.windows:
        return []
    kept = (
        "the cache keeps all tokens of every layer, as an engine without a manager for windows does."
        if not budget.windows
        else f"{format_bytes(budget.windows)} of each GPU are set aside for the windows of all sequences; blocks, hits "
        "and copies count the other layers (engine.hybrid_kv_cache)."
    )
    return [f"Layers with a sliding window read and compute no more than it; {kept}"]
