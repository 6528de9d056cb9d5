"""Does a policy keep its contract? One function for every family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from policies.admission_control.base import AdmissionControl
from policies.architecture.base import Architecture
from policies.base import AdmissionPolicy, EvictionPolicy, OffloadPolicy, PrefetchPolicy, TierInfo
from policies.checks.admission import check_admission
from policies.checks.admission_control import check_admission_control
from policies.checks.architecture import check_architecture
from policies.checks.error import CAPACITY, TOKENS, ContractError
from policies.checks.eviction import check_eviction
from policies.checks.fleet import check_scaling
from policies.checks.model_tier import ModelTier
from policies.checks.offload import check_offload
from policies.checks.placement import MACHINES, check_placement
from policies.checks.prefetch import check_prefetch
from policies.checks.reuse import check_index, check_response_cache
from policies.checks.routing import check_router
from policies.checks.scheduling import check_scheduler
from policies.checks.sequence import check_sequence
from policies.fleet.base import Scaling
from policies.placement.base import Placement
from policies.reuse.base import PrefixIndex, ResponseCache
from policies.routing.base import Router
from policies.scheduling.base import Scheduler
from policies.sequence.plan import SequencePolicy

__all__ = ["ContractError", "ModelTier", "check_policy"]

CHECKS: Mapping[type, Callable[..., None]] = MappingProxyType(
    {
        EvictionPolicy: check_eviction,
        AdmissionPolicy: check_admission,
        OffloadPolicy: check_offload,
        PrefetchPolicy: check_prefetch,
        Router: check_router,
        Scaling: check_scaling,
        AdmissionControl: check_admission_control,
        Scheduler: check_scheduler,
        ResponseCache: check_response_cache,
        PrefixIndex: check_index,
        SequencePolicy: check_sequence,
        Placement: check_placement,
        Architecture: check_architecture,
    }
)
"""What checks the policies of each base class."""

TIER = TierInfo("checked", CAPACITY * TOKENS, TOKENS, next_use=float)
BUILT_FOR: Mapping[type, Any] = MappingProxyType({EvictionPolicy: TIER, AdmissionPolicy: TIER, Placement: MACHINES[-1]})
"""What the constructors of some families get first."""


def check_policy(factory: Callable[..., Any], *, seed: int = 0, operations: int = 2_000) -> None:
    """Drive a policy through `operations` random operations and check every rule of its family's contract.

    `factory` builds the policy, anew at each call: a class will do, or a function, which gets the tier (TierInfo) for
    an eviction or admission policy, the memories (PlacementInfo) for a placement, and nothing for one of another
    family. The family is that of the policy's base class (`policies.base`, `policies.routing.base`), whose docstring
    has the rules. The same seed gives the same operations. Complexity is not checked. Raises ContractError, which
    names the rule, and TypeError for what makes no policy.
    """
    for base, check in CHECKS.items():
        if _makes(factory, base):
            check(factory, seed=seed, operations=operations)
            return
    bases = ", ".join(base.__name__ for base in CHECKS)
    raise TypeError(f"{factory!r} makes no policy, expected a subclass of {bases}, or a function that returns one")


def _makes(factory: Callable[..., Any], base: type) -> bool:
    if inspect.isclass(factory):
        return issubclass(factory, base)
    parameters = inspect.signature(factory).parameters.values()
    takes_one = any(p.default is p.empty and p.kind is not p.KEYWORD_ONLY for p in parameters)
    if takes_one is not (base in BUILT_FOR):
        return False
    if not takes_one:
        return isinstance(factory(), base)
    try:
        return isinstance(factory(BUILT_FOR[base]), base)
    except AttributeError:  # it looked at a tier for a placement's memories, or the other way round
        return False
