"""Systems of the field by name: what each is made of, by policy family, and what of the scenario comes with it.

A scenario names them under `policies`: `arkvale`, `[think, kivi]`, `{name: arkvale, budget: 4096}` (options of one), or
`{system: arkvale, eviction: lru}` beside families. The resolved scenario has what they expand to. Systems across
sequences also set up tiers, links and the engine (`policies.tiers_of_systems`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hw_profiles.errors import InputError
from policies.build import policy_options
from policies.system import Setup, System
from policies.systems_across import ACROSS
from policies.systems_within import WITHIN
from policies.tables import ARCHITECTURE, REUSE, SEQUENCE_FAMILIES

SEVERAL = ("kv_format", "reuse")
"""Families of which several policies apply one after the other."""

SYSTEMS: dict[str, System] = {**WITHIN, **ACROSS}


class Expansion(NamedTuple):
    """What `policies: value` stands for: policies by family, settings of the engine, and what systems across
    sequences set up, by name."""

    policies: dict[str, Any]
    engine: dict[str, Any]
    setups: dict[str, Setup]


def expand(value: Any) -> Expansion:
    """Policies by family, settings of the engine and setups that `policies: value` stands for.

    `value` is a system's name, {name: system, option: value}, a list of these, or a mapping by family that may have
    `system` (one of the former) beside families. Raises InputError for unknown names, options that no policy of the
    system has, and two systems (or a system and a family) that contradict each other.
    """
    made = Expansion({}, {}, {})
    if isinstance(value, Mapping) and "name" not in value:
        named = value.get("system", [])
        own = {family: given for family, given in value.items() if family != "system"}
    else:
        named, own = value, {}
    for item in named if isinstance(named, list) else [named]:
        name, options = _named(item)
        _add(made, name, SYSTEMS[name], options)
    policies = made.policies
    for family, given in own.items():
        if family in SEVERAL and family in policies:
            policies[family] = [*policies[family], *(given if isinstance(given, list) else [given])]
        elif family in policies and policies[family] != given:
            raise InputError("the system has a policy of this family already", path=family, found=given)
        else:
            policies[family] = given
    return made


def _add(made: Expansion, name: str, system: System, options: Mapping[str, Any]) -> None:
    engine = system.engine
    if system.setup is None:
        _merge(made.policies, _with_options(name, system, options), name)
    else:
        setup = made.setups[name] = _set_up(name, system, options)
        _merge(made.policies, setup.policies, name)
        engine = setup.engine
    for key, setting in engine.items():
        if made.engine.setdefault(key, setting) != setting:
            raise InputError(f"{name} needs engine.{key}: {setting}", found=f"another system has {made.engine[key]}")


def _set_up(name: str, system: System, options: Mapping[str, Any]) -> Setup:
    """What a system across sequences makes of its options."""
    assert system.setup is not None
    allowed = policy_options(system.setup)
    for key, setting in options.items():
        if key not in allowed:
            raise InputError(f"{name} has no such option", path=key, found=setting, allowed=allowed, near=allowed)
    try:
        return system.setup(**options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        option, colon, problem = str(error).partition(": ")
        raise InputError(problem if colon else str(error), path=option if colon else None) from None


def _named(item: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        name, options = item, {}
    elif isinstance(item, Mapping) and isinstance(item.get("name"), str):
        name, options = item["name"], {key: given for key, given in item.items() if key != "name"}
    else:
        raise InputError("", found=item, allowed="a system, {name: a system, option: value}, or a mapping by family")
    if name not in SYSTEMS:
        raise InputError("unknown system", found=name, allowed=SYSTEMS, near=SYSTEMS)
    return name, options


def _with_options(name: str, system: System, options: Mapping[str, Any]) -> dict[str, Any]:
    """The system's policies, with each option given to the policy that has it."""
    policies = {family: _listed(given) for family, given in system.policies.items()}
    for option, setting in options.items():
        takers = [
            (family, i)
            for family, given in policies.items()
            for i, policy in enumerate(given)
            if option in _options(family, policy["name"])
        ]
        if not takers:
            allowed = sorted({o for f, given in policies.items() for p in given for o in _options(f, p["name"])})
            raise InputError(f"{name} has no such option", path=option, found=setting, allowed=allowed, near=allowed)
        for family, i in takers:
            policies[family][i] = {**policies[family][i], option: setting}
    return {family: given if family in SEVERAL else given[0] for family, given in policies.items()}


def _listed(given: Any) -> list[dict[str, Any]]:
    return [{"name": p} if isinstance(p, str) else dict(p) for p in (given if isinstance(given, list) else [given])]


def _options(family: str, name: str) -> dict[str, Any]:
    table = {**SEQUENCE_FAMILIES, "architecture": ARCHITECTURE, "reuse": REUSE}[family]
    return policy_options(table[name])


def _merge(policies: dict[str, Any], more: Mapping[str, Any], name: str) -> None:
    for family, given in more.items():
        if family in SEVERAL:
            policies[family] = [*policies.get(family, []), *given]
        elif policies.setdefault(family, given) != given:
            other = policies[family]
            other = other["name"] if isinstance(other, Mapping) else other
            problem = f"{name} cannot be combined with that system: both decide {family}"
            raise InputError(problem, found=f"{other} and {given['name']}")
