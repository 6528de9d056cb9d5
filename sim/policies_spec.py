"""The `policies:` section of a scenario."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from hw_profiles.errors import InputError
from policies.systems import expand
from policies.tables import SEQUENCE_OFFLOAD, SEQUENCE_PREFETCH, WITHIN
from sim.spec_base import PolicySpec, Spec


def _several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def names_of(chosen: PolicySpec | tuple[PolicySpec, ...] | None) -> list[str]:
    """Names of policies that do something."""
    policies = chosen if isinstance(chosen, tuple) else () if chosen is None else (chosen,)
    return [policy.name for policy in policies if policy.name != "none"]


class PoliciesSpec(Spec):
    """Policies by family, for every tier that does not name its own; those within a sequence (`policies.sequence`).

    An offload or prefetch policy of what happens within a sequence goes by `sequence_offload`, `sequence_prefetch` once
    the scenario is resolved. kv_format, reuse: one policy or several, applied in this order. scheduling: of every
    replica's engine; None: `engine.scheduling` alone.
    """

    eviction: PolicySpec = PolicySpec(name="lru")
    admission: PolicySpec | None = None
    prefetch: PolicySpec | None = None
    offload: PolicySpec = PolicySpec(name="write_through")
    scheduling: PolicySpec | None = None
    architecture: PolicySpec | None = None
    kv_format: Annotated[tuple[PolicySpec, ...], BeforeValidator(_several)] = ()
    retention: PolicySpec | None = None
    selection: PolicySpec | None = None
    sequence_offload: PolicySpec | None = None
    sequence_prefetch: PolicySpec | None = None
    reuse: Annotated[tuple[PolicySpec, ...], BeforeValidator(_several)] = ()

    @property
    def within(self) -> tuple[str, ...]:
        """Families that have a policy of what happens within a sequence."""
        return tuple(family for family in WITHIN if family != "architecture" and names_of(getattr(self, family)))

    @model_validator(mode="before")
    @classmethod
    def _families(cls, value: Any) -> Any:
        if isinstance(value, str | list) or (isinstance(value, dict) and {"name", "system"} & value.keys()):
            value = expand(value).policies
        if isinstance(value, dict):
            value = dict(value)
            for family, table in (("offload", SEQUENCE_OFFLOAD), ("prefetch", SEQUENCE_PREFETCH)):
                named = value.get(family)
                if (named.get("name") if isinstance(named, dict) else named) in table:
                    value[f"sequence_{family}"] = value.pop(family)
            if "routing" in value:
                text = "a router is named beside `policies`, as `routing: least_loaded`"
                raise InputError(text, path="routing", found=value["routing"])
            if "fleet" in value:
                text = "it is named beside `policies`, as `fleet: {scaling: target_utilization}`"
                raise InputError(text, path="fleet", found=value["fleet"])
        return value
