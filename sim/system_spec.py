"""What systems named under `policies` put into the rest of a scenario: the engine, tiers and links they work with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hw_profiles.errors import InputError
from policies.system import Setup, TierPart
from policies.systems import expand
from sim.tier_spec import HBM, TIER_KINDS


def with_systems(document: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario with the systems under `policies` spelled out: policies by family, and their tiers, links and
    settings of the engine in the place of defaults.

    A tier that the scenario names is completed; one that a system needs and that has a size nowhere, and values that
    contradict a system's, raise InputError. Parts that are no mappings or lists are left for the schema to refuse.
    """
    try:
        made = expand(document["policies"])
    except InputError as error:
        raise error.at(path="policies") from None
    done = {**document, "policies": made.policies}
    _settle(done, "engine", made.engine, "the system under `policies`")
    for name, setup in made.setups.items():
        _set_up(done, name, setup)
    return done


def _set_up(done: dict[str, Any], name: str, setup: Setup) -> None:
    given = done.get("engine")
    if setup.engine_defaults and (given is None or isinstance(given, Mapping)):
        done["engine"] = _filled(given or {}, setup.engine_defaults)
    _settle(done, "links", setup.links, name)
    tiers = done.get("tiers", [{"name": HBM}])
    if not isinstance(tiers, list) or not all(isinstance(tier, Mapping) and "name" in tier for tier in tiers):
        return
    tiers = [_settled(tier, name, setup.hbm) if tier["name"] == HBM else tier for tier in tiers]
    for part in setup.tiers:
        tiers = _with_tier(tiers, name, part)
        if any(tier["name"] == part.name for tier in tiers):
            for family, policy in part.policies.items():
                if done["policies"].setdefault(family, policy) != policy:
                    problem = f"{name} has a policy of this family already, that of its tier {part.name}"
                    raise InputError(problem, path=f"policies.{family}", found=done["policies"][family])
    done["tiers"] = tiers


def _with_tier(tiers: list[Any], name: str, part: TierPart) -> list[Any]:
    """The tiers with a system's own among them: completed where it stands, or put where its kind belongs."""
    place = next((i for i, tier in enumerate(tiers) if tier["name"] == part.name), None)
    tier: dict[str, Any] = {"name": part.name} if place is None else dict(tiers[place])
    if part.capacity is not None and tier.setdefault("capacity", part.capacity) != part.capacity:
        problem = f"{name} has another size for it, its option {part.name}: {part.capacity}"
        raise InputError(problem, path=f"tiers.{part.name}.capacity", found=tier["capacity"])
    if "capacity" not in tier:
        if part.needed or place is not None:
            example = f"policies: {{name: {name}, {part.name}: 512 GiB}}"
            problem = f"{name} needs the size of its tier {part.name}"
            raise InputError(problem, path="policies", allowed=f"`{example}`, or that tier with a capacity")
        return tiers
    others = any(other["name"] not in (HBM, part.name) for other in tiers)
    tier = _filled(_settled(tier, name, part.settings), {**part.defaults, **({} if others else part.alone)})
    if place is not None:
        return [*tiers[:place], tier, *tiers[place + 1 :]]
    kinds = list(TIER_KINDS)
    nearer = [i for i, t in enumerate(tiers) if t["name"] in kinds and kinds.index(t["name"]) < kinds.index(part.name)]
    place = nearer[-1] + 1 if nearer else len(tiers)
    return [*tiers[:place], tier, *tiers[place:]]


def _settled(given: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The tier with what the system has of it; InputError where the scenario says otherwise."""
    tier = dict(given)
    for key, setting in settings.items():
        found = tier.setdefault(key, setting)
        if _named(found) != _named(setting):
            problem = f"{name} has {key}: {_shown(setting)} in this tier; its own options say otherwise if any does"
            raise InputError(problem, path=f"tiers.{tier['name']}.{key}", found=_shown(found))
    return tier


def _settle(done: dict[str, Any], section: str, needs: Mapping[str, Any], who: str) -> None:
    """Put what must be so into a section; raise InputError where the scenario says otherwise."""
    given = done.get(section)
    if not needs or not (given is None or isinstance(given, Mapping)):
        return
    filled = _filled(given or {}, needs)
    for key, setting in needs.items():
        parts = setting.items() if isinstance(setting, Mapping) else (("", setting),)
        for part, value in parts:
            found = filled[key].get(part) if part and isinstance(filled[key], Mapping) else filled[key]
            if found != value:
                path = f"{key}.{part}" if part else key
                raise InputError(f"{who} needs {path}: {_shown(value)}", path=f"{section}.{path}", found=found)
    done[section] = filled


def _filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with `defaults` for what it leaves out, one level down too."""
    filled = {**defaults, **given}
    for key, setting in defaults.items():
        if isinstance(setting, Mapping) and isinstance(given.get(key), Mapping):
            filled[key] = {**setting, **given[key]}
    return filled


def _named(value: Any) -> Any:
    """A policy given as a name, as a mapping."""
    return {"name": value} if isinstance(value, str) else value


def _shown(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value["name"] if isinstance(value, Mapping) and len(value) == 1 and "name" in value else value
