"""Several models on the same GPUs: what each of them takes, and the instances that each may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hw_profiles.errors import InputError
from hw_profiles.scaling import COMPUTE, HBM, Machine, scaled
from policies.fleet.prewarm import GpuView, Group, ModelView, Placed, PoolView
from sim.clock import Clock
from sim.cost.step import StepCost
from sim.fleet.spec import ServedSpec
from sim.inputs import Inputs, load_inputs
from sim.recorder import Recorder
from sim.replicas import step_cost
from sim.scenario import Scenario
from sim.topology import Topology
from traces.request import Trace

GRANULE = 2 << 20
"""Memory is lent and given back in whole ones. SOURCE: LLMServe/WarmServe, common.py, MEM_GRANULARITY."""


@dataclass(frozen=True)
class Part:
    """A model with prices and caches for some instances: all that it may have, or one that shares its GPUs.

    groups       GPUs of each instance; their indices begin at `first`
    shard_bytes  weights on each GPU, in whole granules
    kv_bytes     memory for KV on each GPU, when nothing is lent
    compute      part of the GPU that an instance has
    """

    model: int
    inputs: Inputs
    cost: StepCost
    topology: Topology
    scenario: Scenario
    groups: tuple[Group, ...]
    first: int
    shard_bytes: int
    kv_bytes: int
    compute: float = 1.0


def granules(size: int) -> int:
    """Bytes rounded up to whole granules."""
    return -(-size // GRANULE) * GRANULE


def load_models(scenario: Scenario, trace: Trace) -> list[Inputs]:
    """Every model of `fleet.models` alone on its GPUs. Raises InputError."""
    fleet = scenario.spec.fleet
    assert fleet is not None
    return [_inputs(_of(scenario, served, 1), trace, i) for i, served in enumerate(fleet.models)]


def views(scenario: Scenario, loaded: Sequence[Inputs]) -> tuple[list[ModelView], list[GpuView]]:
    """What policies see of models and of idle GPUs."""
    spec = scenario.spec
    fleet, hardware = spec.fleet, spec.hardware
    assert fleet is not None
    whole = sum(served.share for served in fleet.models)
    models = []
    for index, (served, inputs) in enumerate(zip(fleet.models, loaded, strict=True)):
        shard = granules(inputs.budget.weights)
        rate = inputs.links["pcie_h2d"].beta / inputs.layout.lanes  # type: ignore[union-attr]
        kv = inputs.token_bytes // served.tp
        name = inputs.model.name
        models.append(ModelView(index, name, served.tp, shard, shard / rate, kv, served.share / whole))
    usable = idle_bytes(loaded)
    gpus = [GpuView(g, g // hardware.gpus_per_node, None, usable) for g in range(hardware.replicas)]
    return models, gpus


def idle_bytes(loaded: Sequence[Inputs]) -> int:
    """Bytes of a GPU for weights while nothing runs there."""
    return min(inputs.budget.usable - inputs.budget.reserved for inputs in loaded)


def build_parts(
    scenario: Scenario, loaded: Sequence[Inputs], clock: Clock, recorder: Recorder, groups: PoolView
) -> list[Part]:
    """A part per model, with an instance for every group that it may have."""
    fleet = scenario.spec.fleet
    assert fleet is not None
    parts: list[Part] = []
    first = 0
    for index, (served, inputs) in enumerate(zip(fleet.models, loaded, strict=True)):
        mine = tuple(groups.groups(served.tp))
        parts.append(_part(_of(scenario, served, first + len(mine)), inputs, index, mine, first, clock, recorder))
        first += len(mine)
    return parts


def shared_parts(
    scenario: Scenario, loaded: Sequence[Inputs], placed: Sequence[Placed], clock: Clock, recorder: Recorder
) -> list[Part]:
    """A part per instance that shares its GPUs: with its part of their arithmetic, bandwidth and memory for KV.

    A part is that of the load of the models on a GPU: a model's share of the requests times its weights, over its
    instances; of several GPUs the least. KV is split so that all of a GPU's have the same number of tokens.
    """
    fleet = scenario.spec.fleet
    assert fleet is not None
    models, gpus = views(scenario, loaded)
    count = [sum(p.model == m.index for p in placed) for m in models]
    if not all(count):
        lacking = ", ".join(m.name for m, n in zip(models, count, strict=True) if not n)
        problem = f"there is no room for {lacking} beside the others"
        raise InputError(problem, where=scenario.where, path="fleet.prewarm")
    load = [m.share * m.shard_bytes / n for m, n in zip(models, count, strict=True)]
    tokens = []
    for gpu in gpus:
        here = [p for p in placed if gpu.index in p.group]
        activations = max((loaded[p.model].budget.activations for p in here), default=0)
        left = gpu.free - activations - sum(models[p.model].shard_bytes for p in here)
        tokens.append(left // sum(models[p.model].kv_bytes for p in here) if here else 0)
    parts = []
    for index, (model, group) in enumerate(placed):
        part = min(load[model] / sum(load[p.model] for p in placed if gpu in p.group) for gpu in group)
        blocks = min(tokens[gpu] for gpu in group) // scenario.spec.engine.block_tokens
        served = fleet.models[model]
        own = _of(scenario, served, index + 1, num_gpu_blocks=max(1, blocks))
        inputs = _inputs(own, loaded[model].trace, model, change=_fraction(part))
        parts.append(_part(own, inputs, model, (group,), index, clock, recorder, part))
    return parts


def _fraction(part: float) -> Callable[[Machine], Machine]:
    return lambda machine: scaled(scaled(machine, COMPUTE, part), HBM, part)


def _of(scenario: Scenario, served: ServedSpec, instances: int, **engine: int) -> Scenario:
    """The scenario of one of its models."""
    settings = [("fleet", None), ("model", served.name), ("hardware.tp", served.tp)]
    own = [("hardware.replicas", instances), *((f"engine.{key}", value) for key, value in engine.items())]
    return scenario.set_all([*settings, *own])


def _inputs(scenario: Scenario, trace: Trace, model: int, change: Callable[[Machine], Machine] | None = None) -> Inputs:
    try:
        return load_inputs(scenario, read=lambda *_, **__: trace, change=change)
    except InputError as error:
        raise error.at(path=f"fleet.models.{model}") from None


def _part(
    scenario: Scenario,
    inputs: Inputs,
    model: int,
    groups: Iterable[Group],
    first: int,
    clock: Clock,
    recorder: Recorder,
    compute: float = 1.0,
) -> Part:
    cost = step_cost(scenario.spec, inputs)
    topology = Topology(scenario, inputs, clock, recorder, cost)
    shard = granules(inputs.budget.weights)
    kv = inputs.budget.blocks * inputs.budget.block_bytes
    return Part(model, inputs, cost, topology, scenario, tuple(groups), first, shard, kv, compute)
