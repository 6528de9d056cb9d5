"""The study behind `kvsim cache SCENARIO`: seconds of loading and computing by policy, against the least possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import InputError
from sim.cache.bound import Bound, Visits, lower_bound, regret
from sim.cache.policy_names import as_mapping, label
from sim.cache.prices import Prices, prices_of, spent_s
from sim.cache.still import Still
from sim.framework_spec import full_step
from sim.inputs import Inputs, load_inputs
from sim.scenario import Scenario
from sim.spec_base import PolicySpec

SCENARIO = "scenario"
"""In place of a policy's name: what the scenario says, tier by tier."""

STILL = (
    "Time stands still: prompts are looked up, loaded and computed one after the other in order of arrival, in no "
    "time. The tiers of all replicas and nodes count as one each, so routing plays no part; prefetching has nothing to "
    "run ahead of; output is not stored. Blocks, whole prefixes, admission and offload are the engine's: full blocks "
    "only, and the last token of a prompt is always computed."
)


@dataclass(frozen=True)
class TierFacts:
    """A tier of all replicas together: KV tokens that it holds, and seconds to load one of them."""

    name: str
    capacity_tokens: int
    load_s_per_token: float


@dataclass(frozen=True)
class PolicyRow:
    """An eviction policy in every tier: prompt tokens by the tier that served them, the seconds of the others, and
    how much more than the bound all seconds are."""

    policy: str
    hit_tokens: Mapping[str, int]
    computed_tokens: int
    load_s: float
    compute_s: float
    regret: float

    @property
    def seconds(self) -> float:
        """Load + compute seconds."""
        return self.load_s + self.compute_s


@dataclass(frozen=True)
class Regret:
    """Policies in one hierarchy, and the bound. `requests` were served; `left_out` are longer than a replica takes."""

    scenario: str
    trace: str
    source: str
    requests: int
    left_out: int
    input_tokens: int
    prefetch: str | None
    warnings: tuple[str, ...]
    prices: Prices
    tiers: tuple[TierFacts, ...]
    bound: Bound
    rows: tuple[PolicyRow, ...]


def run_regret(
    scenario: Scenario,
    policies: Sequence[str | Mapping[str, Any]],
    *,
    strict: bool = False,
    base_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Regret:
    """Load + compute seconds of every policy in the tiers of `scenario`, and their lower bound.

    A policy is a name of the table of eviction policies (`belady` knows the future, and the bound is below it too),
    "my_policy.py:MyPolicy", a mapping of such a `name` and options, or "scenario": what the scenario says, tier by
    tier. A file is looked for in `base_dir` (the working directory). `progress` is called with policies done and
    policies in all. Raises InputError for an unknown policy, one that breaks its contract, a trace without prefix
    information, and what is wrong with the scenario.
    """
    return regret_of(scenario, load_inputs(scenario, strict=strict), policies, base_dir=base_dir, progress=progress)


def regret_of(
    scenario: Scenario,
    inputs: Inputs,
    policies: Sequence[str | Mapping[str, Any]],
    *,
    base_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Regret:
    """`run_regret` of inputs that are loaded already."""
    here = base_dir or Path.cwd()
    chosen = {label(spec): spec for spec in map(as_mapping, policies)}
    if not chosen:
        raise InputError("none given", path="policy")
    trace = inputs.trace
    if inputs.warm_start is not None:
        raise InputError("the bound is of caches that are empty at first", where=scenario.where, path="warm_start")
    if not trace.block_tokens:
        raise InputError("has no hash ids: nothing is known of shared prefixes", where=trace.source)
    still = Still(scenario, inputs)
    served = still.served
    if not len(served):
        raise InputError("no request fits the model's context and the KV cache of a replica", where=scenario.where)
    lengths = trace.input_tokens[served]
    engine, names = scenario.spec.engine, list(still.capacities)
    prices = prices_of(
        still.costs,
        names,
        chunk=full_step(engine),
        longest=int(lengths.max()),
        token_bytes=inputs.token_bytes,
    )
    turn = np.arange(len(served))
    reusable = (lengths - 1) // engine.block_tokens * engine.block_tokens
    visits = Visits(trace, served, turn, turn, reusable, np.ones(len(served), bool))
    bound = lower_bound(visits, list(still.capacities.values()), prices)
    rows = []
    for name, spec in chosen.items():
        eviction = None if spec == {"name": SCENARIO} else PolicySpec.model_validate(spec).resolved(here)
        hits = still.hits(eviction)
        load_s, compute_s = spent_s(prices, lengths, hits)
        by_tier = dict(zip(names, hits.sum(axis=0).tolist(), strict=True))
        computed = int(lengths.sum() - hits.sum())
        excess = regret(load_s + compute_s, bound.seconds)
        rows.append(PolicyRow(name, by_tier, computed, load_s, compute_s, excess))
        if progress is not None:
            progress(len(rows), len(chosen))
    prefetch = scenario.spec.policies.prefetch
    return Regret(
        scenario=Path(scenario.where).stem,
        trace=trace.name,
        source=scenario.where,
        requests=len(served),
        left_out=len(trace) - len(served),
        input_tokens=int(lengths.sum()),
        prefetch=None if prefetch is None else prefetch.name,
        warnings=trace.warnings,
        prices=prices,
        tiers=tuple(
            TierFacts(name, capacity, load_s)
            for (name, capacity), load_s in zip(still.capacities.items(), prices.load_s, strict=True)
        ),
        bound=bound,
        rows=tuple(rows),
    )
