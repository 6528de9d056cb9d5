"""The policies that a fleet of several models names, and the model that each request is for."""

from __future__ import annotations

import numpy as np

from hw_profiles.errors import InputError
from policies.build import build_policy
from policies.fleet.base import Scaling
from policies.fleet.prewarm import NoPrewarm, Prewarm, Sharing
from sim.fleet.spec import FleetSpec
from sim.scenario import Scenario
from traces.random import stream
from traces.request import Trace


def build_prewarm(scenario: Scenario, spec: FleetSpec) -> Prewarm | Sharing:
    """What `fleet.prewarm` names. Raises InputError."""
    if spec.prewarm is None:
        return NoPrewarm()
    policy = _build(scenario, spec.prewarm.model_dump(), "fleet.prewarm")
    if not isinstance(policy, Prewarm | Sharing):
        problem = "it scales and is named under fleet.scaling"
        raise InputError(problem, where=scenario.where, path="fleet.prewarm", found=spec.prewarm.name)
    return policy


def build_scaling(scenario: Scenario, spec: FleetSpec) -> Scaling:
    """What `fleet.scaling` names, anew for each model. Raises InputError."""
    policy = _build(scenario, spec.scaling.model_dump(), "fleet.scaling")
    if not isinstance(policy, Scaling):
        problem = "it loads weights and is named under fleet.prewarm"
        raise InputError(problem, where=scenario.where, path="fleet.scaling", found=spec.scaling.name)
    return policy


def _build(scenario: Scenario, named: dict[str, object], path: str) -> object:
    try:
        return build_policy("fleet", named, base_dir=scenario.base_dir, path=path)
    except InputError as error:
        raise error.at(where=scenario.where) from None


def models_of(scenario: Scenario, trace: Trace, shares: list[float]) -> list[int]:
    """The model of each request: the trace's, or drawn by share (they add up to 1) from the stream "models"."""
    count = len(shares)
    if trace.models is not None:
        most = int(trace.models.max(initial=0))
        if most >= count:
            problem = f"the trace has requests for {most + 1} models"
            raise InputError(problem, where=scenario.where, path="fleet.models", found=f"{count} models")
        return [int(m) for m in trace.models.tolist()]
    upto = np.cumsum(shares)
    drawn = stream(scenario.spec.seed, "models").random(len(trace))
    return np.minimum(np.searchsorted(upto, drawn, side="right"), count - 1).tolist()  # type: ignore[no-any-return]
